"""An adapter that was downloaded loads with `peft` and scores as on the server."""

import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import tinker
import torch
from transformers import AutoModelForCausalLM

from cookbook.download import download_adapter
from cookbook.errors import ServiceError
from cookbook.supervised import datum_from_tokens, train_step
from tests.engine.processes import EngineProcess

ROW = [5, 6, 7, 8, 9, 10, 11]


@pytest.fixture(scope="module")
def trained(small_service: tinker.ServiceClient, small_engine: EngineProcess) -> Any:
    """The path of a trained state, and log-probabilities of `ROW` under it."""
    run = small_service.create_lora_training_client(str(small_engine.model), rank=2).result()
    datum = datum_from_tokens(ROW, [1.0] * len(ROW), reduction="none")
    for _ in range(3):
        train_step(run, [datum], 0.05)
    outputs = run.forward([datum], "cross_entropy").result().loss_fn_outputs
    return run.save_state("a").result().path, np.array(outputs[0]["logprobs"].data)


def scored(model: Any) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.tensor([ROW[:-1]])).logits[0].float()
    return logits.log_softmax(-1)[torch.arange(len(ROW) - 1), torch.tensor(ROW[1:])].numpy()


@pytest.mark.filterwarnings("error::FutureWarning:tinker")
def test_peft_scores_as_the_server_does(
    small_service: tinker.ServiceClient, small_engine: EngineProcess, trained: Any, tmp_path: Path
) -> None:
    path, expected = trained
    folder = download_adapter(small_service, path, tmp_path / "new" / "adapter")
    names = {"adapter_config.json", "adapter_model.safetensors"}
    assert {file.name for file in folder.iterdir()} == names
    base = AutoModelForCausalLM.from_pretrained(small_engine.model, dtype=torch.float32)
    before = scored(base)
    adapted = peft.PeftModel.from_pretrained(base, str(folder))
    np.testing.assert_allclose(scored(adapted), expected, atol=1e-4)
    assert np.abs(before - expected).max() > 0.1

    (folder / "adapter_model.safetensors").write_bytes(b"of an older run")
    assert download_adapter(small_service, path, folder) == folder
    assert (folder / "adapter_model.safetensors").stat().st_size > 1000


def test_an_unknown_path_is_told(small_service: tinker.ServiceClient, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"gave no files of tinker://.*no checkpoint"):
        download_adapter(small_service, "tinker://s0:train:0/weights/a", tmp_path / "a")
    assert not (tmp_path / "a" / "adapter_config.json").exists()


class OlderRest:
    """What SDK 0.24 offers: one archive of a checkpoint."""

    def __init__(self, archive: Path) -> None:
        self.url = archive.as_uri()

    def get_checkpoint_archive_url(self, run_id: str, checkpoint_id: str) -> Any:
        raise NotImplementedError

    def get_checkpoint_archive_url_from_tinker_path(self, path: str) -> Any:
        return SimpleNamespace(result=lambda: SimpleNamespace(url=self.url))


def older_service(tmp_path: Path, *names: str) -> Any:
    """Return a service whose archive holds empty files of these names."""
    archive = tmp_path / "archive.tar"
    (tmp_path / "empty").write_bytes(b"")
    with tarfile.open(archive, "w") as file:
        for name in names:
            file.add(tmp_path / "empty", arcname=name)
    return SimpleNamespace(create_rest_client=lambda: OlderRest(archive))


def test_the_archive_of_an_older_server_is_unpacked(tmp_path: Path) -> None:
    names = ("./adapter_config.json", "deep/adapter_model.safetensors", "../escaped", "optimizer")
    folder = download_adapter(older_service(tmp_path, *names), "tinker://x", tmp_path / "out")
    assert {file.name for file in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert not (tmp_path / "escaped").exists()


def test_an_archive_without_an_adapter_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="gave no files"):
        download_adapter(older_service(tmp_path, "readme.md"), "tinker://x", tmp_path / "out")


@pytest.mark.parametrize("name", ["../adapter_config.json", ".adapter", "a/b"])
def test_a_name_that_leaves_the_folder_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = SimpleNamespace(read=lambda *_: b"")
    files = lambda *_: iter([(name, content)])  # noqa: E731
    monkeypatch.setattr("cookbook.download._archived", files)
    with pytest.raises(ServiceError, match="could lie outside"):
        download_adapter(older_service(tmp_path), "tinker://x", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
