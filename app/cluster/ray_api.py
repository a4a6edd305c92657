"""What is used of Ray: connecting, calls with a limit, nodes, and Ray's own store.

The only file that imports Ray. https://docs.ray.io
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from app.config import ConfigError
from pipeline.core.standard_error import without_standard_error

NAMESPACE = "bodystream"
"""Where the actors of this project have their names."""
_STORE_BYTES = 256 << 20
"""Shared memory of a local Ray: pictures for viewers pass through it, no frames."""
_CONNECT_S = 5.0
_LOOK_S = 0.2
_MEASURE_S = 300.0
"""How long a function may take that has a GPU for itself: it may have to compile for minutes."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Gone(RuntimeError):
    """The actor has ended, or does not answer; the message says which, in a line."""


@dataclass(frozen=True)
class NodeFacts:
    """A machine of the cluster.

    Attributes:
        id: Ray's id of it.
        host: Its name.
        cpus: The cores that Ray may use of it.
        gpus: The GPUs that Ray may use of it.
    """

    id: str
    host: str
    cpus: float
    gpus: float


@cache
def _ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise RuntimeError("--cluster needs ray: pip install 'bodystream[cluster]'")
    # Read at its import. The first silences a remark on machines without a GPU; the second ten
    # lines on standard output for each worker that dies, which the controller reports in one. The
    # third: a call after the end must not start another cluster.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    import ray

    return ray


def _has_token() -> bool:
    """Return whether this machine has a token for Ray's clusters, where Ray looks for it:
    https://docs.ray.io/en/latest/ray-security/token-auth.html"""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or Path(path).expanduser().is_file()


@contextmanager
def connected(address: str, start: bool = True, gpus: int | None = None) -> Iterator[None]:
    """Be connected to a Ray cluster within a ``with`` block.

    Args:
        address: "auto" takes the cluster that runs on this machine, or starts one here for as long
            as the block lasts; "local" starts one in any case; else HOST:PORT of its head.
        gpus: The number of GPUs of a cluster that is started; None for all of this machine.
        start: Whether one is started where none runs.

    Raises:
        ConfigError: There is no cluster at the address.
        RuntimeError: Ray is not installed.
    """
    if address == "auto":
        address = _running_here() or ("local" if start else "auto")
        if address not in ("local", "auto") and _has_token():
            # As Ray's own search: a head that finds a token on its machine asks for it. Before its
            # import, and only there: in a cluster that asks for none, actors would be ended.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    elif address != "local":
        _check_answers(address)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    known: dict[str, Any] = {
        "namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR,
    }  # fmt: skip
    if address == "auto":
        raise ConfigError("--cluster: no Ray cluster runs on this machine")
    ray = _ray()
    with _own_signals():
        try:
            if address == "local":
                ray.init(address=address, num_gpus=gpus, **known, **own)
            else:
                # Each of twenty tries with a wrong token is a line from C++.
                with without_standard_error():
                    ray.init(address=address, **known)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            raise ConfigError(
                f"--cluster: {_line(error)}. Does it ask for a token? Set RAY_AUTH_MODE=token, "
                "with its ~/.ray/auth_token on this machine"
            ) from None
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"--cluster: {_line(error)}") from None
    try:
        yield
    finally:
        with _own_signals():
            ray.shutdown()


def _running_here() -> str | None:
    """Return the address of the cluster that runs on this machine, None if there is none.

    Ray's own search takes the address that the last cluster has left, and tries it for minutes
    where that one was killed.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        left = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
        with suppress(OSError):
            address = left.read_text(encoding="utf-8").strip()
    try:
        _check_answers(address)
    except _NoAnswer:
        return None
    return address


class _NoAnswer(ConfigError):
    """Nothing answers at an address, or it is none."""


def _check_answers(address: str) -> None:
    """Raise _NoAnswer unless something listens at HOST:PORT, and ConfigError unless it speaks TLS
    as this process does: Ray itself tries for minutes, and then ends the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "//" in host:
        raise _NoAnswer(f"--cluster: {address}: give auto, or HOST:PORT of the cluster's head")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S) as there:
            speaks_tls = _speaks_tls(there)
    except (OSError, OverflowError) as error:
        raise _NoAnswer(
            f"--cluster: no Ray cluster answers at {address} ({_line(error)})"
        ) from None
    wants_tls = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")
    if speaks_tls and not wants_tls:
        raise ConfigError(f"--cluster: {address} speaks TLS; set RAY_USE_TLS=1 and its three files")
    if wants_tls and not speaks_tls:
        raise ConfigError(f"--cluster: {address} speaks no TLS, which RAY_USE_TLS asks for")


def _speaks_tls(connection: socket.socket) -> bool:
    """Return whether the other end of a connection answers a TLS greeting; nothing is verified."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection):
            return True
    except OSError:
        return False


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the program's signal handlers: Ray puts its own in their place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def result(ref: Any, timeout_s: float) -> Any:
    """Return what a call to an actor returned.

    Args:
        ref: The call.
        timeout_s: How long it may take, in seconds.

    Raises:
        Gone: The actor has ended, or takes longer.
        BaseException: What the call raised there.
    """
    ray = _ray()
    try:
        return ray.get(ref, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        raise Gone(f"it has not answered for {timeout_s:g} s") from None
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except (ray.exceptions.RayActorError, ray.exceptions.RayError) as error:
        raise Gone(_why_ended(error)) from None


def _why_ended(error: BaseException) -> str:
    """Return why an actor ended, of Ray's lines of explanation."""
    if isinstance(error, _ray().exceptions.OutOfMemoryError):
        return "it was ended for want of memory"
    for words, why in (("its node", "its machine has gone"), ("ray.kill", "it was ended")):
        if words in str(error):
            return why
    return "its process ended unexpectedly"


def finished(refs: Sequence[Any]) -> set[Any]:
    """Return those of some calls that are finished, in whatever way."""
    if not refs:
        return set()
    ready, _ = _ray().wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
    return set(ready)


def wait_for(refs: Sequence[Any], timeout_s: float) -> None:
    """Wait until calls are finished, for ``timeout_s`` seconds at most."""
    if refs:
        _ray().wait(list(refs), num_returns=len(refs), timeout=timeout_s)


def start_actor(
    made: Callable[..., Any],
    *args: Any,
    name: str,
    node: str | None = None,
    cpus: float = 0.0,
    gpus: float = 0.0,
    threads: int = 16,
    groups: dict[str, int] | None = None,
    restarts: int = 0,
    detached: bool = True,
) -> Any:
    """Start an actor; return its handle.

    Args:
        made: Its class.
        args: What it is made with; pickled.
        name: Its name, which no other one has.
        node: The id of its machine; None for this one.
        cpus: The cores that it holds of Ray's.
        gpus: The share of GPUs.
        threads: How many calls run at once.
        groups: Groups of calls with threads of their own, by name.
        restarts: How often Ray starts it again; -1 for ever.
        detached: Whether it outlives the process that started it.
    """
    ray = _ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id() if node is None else node
    groups = groups or {}
    actor = ray.remote(concurrency_groups=groups)(made) if groups else ray.remote(made)
    return actor.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached" if detached else None,
        num_cpus=cpus,
        num_gpus=gpus,
        max_concurrency=threads,
        max_restarts=restarts,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=restarts != 0),
    ).remote(*args)


def call(actor: Any, method: str, *args: Any, group: str | None = None) -> Any:
    """Begin a call to an actor, and return what `result` takes.

    Args:
        actor: Its handle.
        method: The name of the method.
        args: Its arguments; pickled.
        group: The group of threads that runs it; None for the actor's other threads.
    """
    found = getattr(actor, method)
    return (found if group is None else found.options(concurrency_group=group)).remote(*args)


def measured(made: Callable[..., Any], *args: Any, node: str, stop: threading.Event) -> Any:
    """Return what a function returns that has a whole GPU of a machine for itself.

    Args:
        made: The function; pickled.
        args: What it is called with; pickled.
        node: The id of the machine.
        stop: Ends the wait when it is set.

    Raises:
        Gone: It takes longer than `_MEASURE_S`, ``stop`` was set, or its process has ended.
        BaseException: What it raises.
    """
    ray = _ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # The process ends with the call: one that stays would keep a part of the GPU's memory.
    task = ray.remote(num_gpus=1, max_calls=1)(made).options(
        num_cpus=1,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    ref = task.remote(*args)
    end_s = time.monotonic() + _MEASURE_S
    try:
        while ref not in finished([ref]):
            if stop.wait(_LOOK_S):
                raise Gone("it was stopped")
            if time.monotonic() > end_s:
                raise Gone(f"it was not done within {_MEASURE_S:g} s: is its GPU taken?")
        return result(ref, _LOOK_S)
    except Gone:
        # Or it would take the whole GPU later, from those who use it then.
        ray.cancel(ref, force=True)
        raise


def actor_named(name: str) -> Any | None:
    """Return the handle of a living actor, None if there is none of that name."""
    try:
        return _ray().get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def kill(handle: Any) -> None:
    """End an actor at once, for good."""
    # It may have ended by itself.
    with suppress(Exception):
        _ray().kill(handle, no_restart=True)


def nodes() -> list[NodeFacts]:
    """Return the machines of the cluster that are there."""
    return [
        NodeFacts(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
        )
        for node in _ray().nodes()
        if node["Alive"]
    ]


def this_node() -> str:
    """Return Ray's id of the machine of this process."""
    return str(_ray().get_runtime_context().get_node_id())


def keep(key: str, value: Any) -> None:
    """Keep a value in Ray's own store, which outlives every actor."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(
        key.encode(), pickle.dumps(value), overwrite=True, namespace=NAMESPACE.encode()
    )


def kept(key: str) -> Any | None:
    """Return the value that was kept, None if there is none."""
    from ray.experimental.internal_kv import _internal_kv_get

    data = _internal_kv_get(key.encode(), namespace=NAMESPACE.encode())
    return None if data is None else pickle.loads(data)


def forget(key: str) -> None:
    """Forget a value that was kept."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(key.encode(), namespace=NAMESPACE.encode())
