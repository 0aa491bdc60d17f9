"""Which server trains and samples: ``connect()`` chooses it, starts it if need be, and says so."""

import atexit
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings
from typing import TYPE_CHECKING, Any

from cookbook.embedded import EmbeddedEngine
from cookbook.errors import ServiceError
from cookbook.frontend import drop_progress_bars
from cookbook.models import DEFAULT_MODEL
from cookbook.older_sdk import adapt

if TYPE_CHECKING:
    import tinker

PROBE_TIMEOUT_S = 10.0
LOCAL_KEY = "tml-local"  # the SDK insists on the prefix; a local server may ignore the key
LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Loading a tokenizer or a model draws bars, or in a kernel without ipywidgets recommends them.
warnings.filterwarnings("ignore", message="IProgress not found")
drop_progress_bars()

_engines: dict[str, EmbeddedEngine] = {}
_engines_lock = threading.Lock()


def connect(model_name: str = DEFAULT_MODEL) -> "tinker.ServiceClient":
    """Return a client of the server to use, and print one line saying which and why.

    ``TINKER_BASE_URL`` names a server; else ``TINKER_API_KEY`` means hosted Tinker; else the
    embedded engine is started on this machine, or used again if this process has a living one for
    the model.

    Args:
        model_name: the base model that you are going to train or sample: a hub id, or for the
            embedded engine also the path of a model folder.

    Raises:
        ServiceError: the server cannot be reached, or the engine did not start.
    """
    base_url, api_key = os.environ.get("TINKER_BASE_URL"), os.environ.get("TINKER_API_KEY")
    if base_url:
        return _named_server(base_url, api_key or LOCAL_KEY, model_name)
    if api_key:
        return _hosted(api_key, model_name)
    return _embedded(model_name)


def _named_server(base_url: str, api_key: str, model_name: str) -> "tinker.ServiceClient":
    _spare_loopback_from_proxies(base_url)
    _probe(base_url)
    print(f"Using the server at {base_url} (TINKER_BASE_URL is set), model {model_name}.")
    return _client(base_url=base_url, api_key=api_key)


def _hosted(api_key: str, model_name: str) -> "tinker.ServiceClient":
    print(f"Using hosted Tinker (TINKER_API_KEY is set), model {model_name}.")
    return _client(api_key=api_key)


def _embedded(model_name: str) -> "tinker.ServiceClient":
    engine = _living_engine(model_name)
    _spare_loopback_from_proxies(engine.base_url)
    print(
        "Using the embedded engine on this machine (neither TINKER_BASE_URL nor TINKER_API_KEY is "
        f"set), model {model_name}."
    )
    return _client(base_url=engine.base_url, api_key=engine.api_key)


def _client(**address: Any) -> "tinker.ServiceClient":
    import tinker  # only here, because it takes seconds to import

    adapt()
    return tinker.ServiceClient(**address)


def _living_engine(model_name: str) -> EmbeddedEngine:
    """Return this process's living engine for the model, starting one if there is none."""
    with _engines_lock:
        engine = _engines.get(model_name)
        if engine is None or not engine.is_alive():
            engine = _engines[model_name] = EmbeddedEngine(model_name)
        return engine


@atexit.register
def _stop_engines() -> None:
    for engine in list(_engines.values()):
        engine.stop()


def _spare_loopback_from_proxies(base_url: str) -> None:
    """Keep HTTP_PROXY and the like from capturing calls to this machine."""
    if urllib.parse.urlsplit(base_url).hostname not in LOOPBACK:
        return
    for variable in ("NO_PROXY", "no_proxy"):
        hosts = [host.strip() for host in os.environ.get(variable, "").split(",")]
        os.environ[variable] = ",".join(dict.fromkeys([*filter(None, hosts), *LOOPBACK]))


def _probe(base_url: str) -> None:
    """Fail now if nothing answers: the SDK itself would try for five minutes first."""
    url = f"{base_url.rstrip('/')}/api/v1/healthz"
    try:
        with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S):
            return
    except urllib.error.HTTPError:
        return  # it answered; not every server has this route, or shows it without a key
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServiceError(
            f"No server answers at {base_url!r}, the value of TINKER_BASE_URL ({reason}). Start "
            "that server, correct the URL (http://host:port), or unset TINKER_BASE_URL to use the "
            "embedded engine."
        ) from error
