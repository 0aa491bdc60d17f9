"""What the SDK never shows: lost replies, shuffled arrivals, keys and status codes."""

import http.client
import threading
import time
import urllib.parse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient
from tinker.proto import tinker_public_pb2 as pb

from cookbook.engine.http import MAX_BODY_BYTES, guarded
from cookbook.engine.server import application
from tests.engine.processes import (
    EngineProcess,
    RawRun,
    failure,
    forward_backward_message,
    http_client,
    post,
    result,
    retrieve,
)

ROW, OTHER_ROW = [5, 6, 7, 8, 9], [40, 30, 20]
ROUTES = [
    (method, route.path.removeprefix("/api/v1/"))
    for route in application(SimpleNamespace(store=None), None, "").routes  # pyright: ignore
    for method in sorted(route.methods - {"HEAD"})  # pyright: ignore
]


@pytest.fixture
def run(http: httpx.Client, tiny_model: Path) -> RawRun:
    return RawRun(http, str(tiny_model))


@pytest.fixture
def twin(http: httpx.Client, tiny_model: Path) -> RawRun:
    """A second run that starts with the same weights."""
    return RawRun(http, str(tiny_model))


def sampler(run: RawRun) -> str:
    body = {"session_id": run.session_id, "sampling_session_seq_id": 0}
    return post(run.http, "create_sampling_session", **body, base_model=run.create["base_model"])[
        "sampling_session_id"
    ]


def sample_body(sampler_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "sampling_session_id": sampler_id,
        "seq_id": 0,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": ROW}]},
        "sampling_params": {"max_tokens": 4},
        **changes,
    }


# Who may ask.


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_no_route_but_healthz_answers_without_the_key(tiny_engine, method, route):
    for key in ("", "tml-other", "tml-ключ", tiny_engine.api_key[:-1]):
        with http_client(tiny_engine.base_url) as client:
            answer = client.request(method, route, json={}, headers={"x-api-key": key.encode()})
        if route == "healthz":
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        else:
            assert answer.status_code == 401
            assert "X-API-Key" in answer.json()["detail"]


def test_the_table_of_routes_was_read():
    assert len(ROUTES) >= 20
    assert ("POST", "forward_backward") in ROUTES


def test_it_listens_on_one_loopback_address_only(tiny_engine):
    url = urllib.parse.urlsplit(tiny_engine.base_url)
    assert url.hostname == "127.0.0.1"
    # A server that listens on all addresses answers on the next one too.
    connection = http.client.HTTPConnection("127.0.0.2", url.port, timeout=2)
    with pytest.raises(OSError):  # noqa: PT011 (refused or timed out)
        connection.request("GET", "/api/v1/healthz")


def test_an_unknown_route_is_refused_by_its_name(http):
    answer = http.get("sessions/s0/trace_export")
    assert answer.status_code == 404
    assert "does not serve GET sessions/s0/trace_export" in answer.json()["detail"]


# Sessions.


def test_heartbeats_say_whether_the_session_lives(http):
    session_id = post(http, "create_session")["session_id"]
    assert post(http, "session_heartbeat", session_id=session_id)
    finish = {"reason": {"type": "success"}, "detail": None}
    for _ in range(2):  # a second time changes nothing
        assert http.post(f"sessions/{session_id}/finish", json=finish).status_code == 200
    assert http.post("session_heartbeat", json={"session_id": session_id}).status_code == 410
    unknown = http.post("session_heartbeat", json={"session_id": "s0"})
    assert unknown.status_code == 404
    assert "there is no session s0" in unknown.json()["detail"]
    assert http.post("sessions/s0/finish", json=finish).status_code == 404


def test_telemetry_is_taken(http):
    assert post(http, "telemetry", events=[]) == {"status": "accepted"}


# Lost replies: the SDK submits again, and nothing may happen twice.


def test_a_model_is_made_once(http, run):
    before = post(http, "get_info", model_id=run.model_id)
    again = [post(http, "create_model", **run.create) for _ in range(2)]
    assert again[0] == again[1]
    assert result(http, again[0])["model_id"] == run.model_id
    assert post(http, "get_info", model_id=run.model_id) == before


def test_a_repeated_create_leaves_the_training_so_far(http, run):
    result(http, run.forward_backward(1, ROW))
    result(http, run.optim_step(2))
    trained = run.loss(3, ROW)
    result(http, post(http, "create_model", **run.create))
    assert run.loss(4, ROW) == trained


def test_forward_backward_counts_once(http, run, twin):
    first = run.forward_backward(1, ROW)
    assert [run.forward_backward(1, ROW) for _ in range(2)] == [first, first]
    twin.forward_backward(1, ROW)
    assert result(http, run.optim_step(2)) == result(http, twin.optim_step(2))


def test_an_optimiser_step_is_taken_once(http, run, twin):
    for one in (run, twin):
        one.forward_backward(1, ROW)
    first = run.optim_step(2)
    assert run.optim_step(2) == first
    result(http, first)
    assert run.optim_step(2) == first  # also after it was fetched
    twin.optim_step(2)
    assert run.loss(3, ROW) == twin.loss(3, ROW)


def test_a_save_is_written_once(http, run):
    first = run.ordered("save_weights", 1, path="once")
    assert run.ordered("save_weights", 1, path="once") == first
    assert result(http, first)["path"] == f"tinker://{run.model_id}/weights/once"


def test_a_repeated_unnamed_save_keeps_its_first_sampler(http, run):
    first = run.ordered("save_weights_for_sampler", 1, sampling_session_seq_id=5)
    again = run.ordered("save_weights_for_sampler", 1, sampling_session_seq_id=6)
    assert again == first
    assert result(http, again)["sampling_session_id"] == f"{run.session_id}:sample:5"


def test_a_sample_is_drawn_once(http, run):
    body = sample_body(sampler(run), num_samples=3)
    first = post(http, "asample", **body)
    assert post(http, "asample", **body) == first
    assert len(set(first["sample_sequence_ids"])) == 3
    bytes_once = retrieve(http, first).content
    assert retrieve(http, first).content == bytes_once
    assert len(pb.SampleResponse.FromString(bytes_once).sequences) == 3
    other = post(http, "asample", **{**body, "seq_id": 10**18})  # clients count in large blocks
    assert other["request_id"] != first["request_id"]


def test_a_sampling_session_is_made_once(run):
    assert sampler(run) == sampler(run) == f"{run.session_id}:sample:0"


# Order.


def test_requests_run_in_the_order_of_their_numbers(http, run, twin):
    """The chunks of one SDK call arrive as 2, 3, ..., 1; here everything is reversed."""
    sent = {
        5: lambda: run.forward_backward(5, OTHER_ROW, forward_only=True),
        4: lambda: run.optim_step(4),
        3: lambda: run.forward_backward(3, OTHER_ROW),
        2: lambda: run.optim_step(2),
        1: lambda: run.forward_backward(1, ROW),
    }
    start = time.monotonic()
    answers = {number: send() for number, send in sent.items()}
    assert time.monotonic() - start < 10  # no submission waited for a lower number
    twin.forward_backward(1, ROW)
    twin.optim_step(2)
    twin.forward_backward(3, OTHER_ROW)
    twin.optim_step(4)
    assert result(http, answers[5]).metrics["loss:sum"] == twin.loss(5, OTHER_ROW)
    assert retrieve(http, answers[2]).json()["metrics"]


def test_a_poll_waits_for_the_outcome(http, tiny_engine, run):
    """An answered poll without an outcome would make the SDK ask again at once, for ever."""
    waiting = run.forward_backward(2, ROW)
    done = threading.Event()

    def poll() -> None:
        with tiny_engine.http() as client:
            retrieve(client, waiting)
        done.set()

    thread = threading.Thread(target=poll)
    thread.start()
    assert not done.wait(0.5)
    run.forward_backward(1, ROW)
    assert done.wait(30)
    thread.join()


def test_a_run_of_an_earlier_engine_fails_at_once(http, run):
    run.model_id = "s0:train:0"
    assert "no training run s0:train:0" in failure(http, run.optim_step(57))


# Bodies that are no requests.


@pytest.mark.parametrize(
    ("route", "content", "message"),
    [
        ("create_session_", b"{}", "does not serve POST create_session_"),
        ("create_model", b"{", "not JSON"),
        ("asample", b"[]", "must be an object"),
        ("optim_step", b"{}", "needs a model's id and a number from 1"),
        ("optim_step", b'{"model_id": "m", "seq_id": 0}', "number from 1"),
        ("forward_backward", b"\xff", "no ForwardBackwardRequest"),
        ("forward_backward", b"", "needs a model's id and a number from 1"),
        ("create_model", b'{"session_id": "s0"}', "model_seq_id"),
    ],
)
def test_a_body_that_is_no_request_gets_a_4xx(http, route, content, message):
    answer = http.post(route, content=content)
    assert answer.status_code in (400, 404, 422)
    assert message in answer.json()["detail"]


def test_a_fault_of_the_engine_is_told_at_once_and_not_as_a_500():
    async def faulty(request: Request) -> Response:
        raise ZeroDivisionError("by zero")

    app = Starlette(routes=[Route("/", guarded(faulty, "key"))])
    answer = TestClient(app).get("/", headers={"x-api-key": "key"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "engine error: ZeroDivisionError: by zero"


def test_an_unknown_result_is_a_404(http):
    answer = http.post("retrieve_future", json={"request_id": "0"})
    assert answer.status_code == 404
    assert "there is no request 0" in answer.json()["detail"]


def test_an_oversized_body_is_refused_unread(tiny_engine):
    url = urllib.parse.urlsplit(tiny_engine.base_url)
    connection = http.client.HTTPConnection("127.0.0.1", url.port or 0, timeout=10)
    connection.putrequest("POST", "/api/v1/asample")
    connection.putheader("X-API-Key", tiny_engine.api_key)
    connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert f"at most {MAX_BODY_BYTES}" in answer.read().decode()
    connection.close()


def test_an_oversized_batch_fails_in_its_turn(http, run):
    message = forward_backward_message(run.model_id, 1, [ROW])
    message.data[0].loss_fn_inputs["weights"].dense = bytes(MAX_BODY_BYTES)
    assert "Send less at a time" in failure(http, run.send_forward_backward(message))
    assert run.loss(2, ROW) > 0


@pytest.mark.parametrize("count", [40])
def test_many_held_polls_leave_room_for_others(tiny_engine: EngineProcess, run, count):
    waiting = run.forward_backward(2, ROW)

    def poll() -> None:
        with tiny_engine.http() as client:
            retrieve(client, waiting)

    threads = [threading.Thread(target=poll) for _ in range(count)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    assert post(run.http, "session_heartbeat", session_id=run.session_id)
    assert time.monotonic() - start < 5
    run.forward_backward(1, ROW)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
