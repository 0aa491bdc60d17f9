"""A JupyterLab of a test's own, and a headless Chromium to look at it with."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
START_S, CELL_S = 120, 400
# No sandbox: tests run as root in containers. The others: no GPU and little shared memory there.
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_SETTINGS = {
    "notebook-extension/tracker": {
        "windowingMode": "none"
    },  # else cells out of sight are not there
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def missing() -> str:
    """Return what keeps the browser tests from running, '' if nothing does."""
    packages = [n for n in ("playwright", "jupyterlab", "ipywidgets") if not _is_installed(n)]
    if packages:
        return f"not installed: {', '.join(packages)} (pip install -e '.[browser]')"
    return "" if CHROMIUM else "no Chromium on the PATH (Debian: apt-get install chromium)"


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@contextmanager
def jupyter_lab(folder: Path, **environment: str) -> Iterator[str]:
    """Serve `folder` and yield the address of JupyterLab there, key included."""
    settings = folder / ".settings"
    for name, values in _SETTINGS.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    env = {
        **os.environ,
        **{name: str(folder / f".{name.lower()}") for name in own},
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces"),
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--allow-root"]
    command += [f"--ServerApp.root_dir={folder}", "--ServerApp.log_level=ERROR"]
    with (folder / ".lab.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        facts = Path(env["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{server.pid}.json"
        wait_until(lambda: facts.exists() or server.poll() is not None, START_S, "no JupyterLab")
        told = json.loads(facts.read_text())
        yield f"http://127.0.0.1:{told['port']}/lab/tree/{{path}}?token={told['token']}"
    finally:
        server.terminate()  # ends its kernels too
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@contextmanager
def browser_page() -> Iterator[Any]:
    """Yield a page of a headless Chromium, as large as a small laptop's screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(1000 * START_S)
        yield page
        browser.close()


class LabNotebook:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Any, address: str, path: str) -> None:
        self.page = page
        page.goto(address.format(path=path))
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.locator("#jp-main-statusbar", has_text="Python 3 (ipykernel) | Idle").wait_for()

    def menu(self, *names: str) -> None:
        """Choose an entry of a menu."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=names[0]).first.click()
        self.page.locator(".lm-Menu-itemLabel", has_text=names[1]).first.click()

    def cell_with(self, text: str) -> Any:
        """Return the code cell whose source holds `text`."""
        return self.page.locator(".jp-CodeCell").filter(
            has=self.page.locator(".jp-InputArea", has_text=text)
        )

    def wait_for_cell(self, text: str) -> None:
        """Wait until the kernel has run the cell whose source holds `text`."""
        prompt = self.cell_with(text).locator(".jp-InputPrompt")
        wait_until(lambda: prompt.inner_text().strip("[]: ").isdigit(), CELL_S, text)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s: {what}"
        time.sleep(0.2)
