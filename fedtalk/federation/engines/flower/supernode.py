"""A site's side of Flower: a SuperNode that speaks with the SuperLink, and the tasks that it hands to this process.

The SuperNode runs with ``--isolation process``: what it receives waits until an executor takes it. Flower's own executor
would start a process for each message and run the code of the app bundle that came with the run. This one is the process
that holds the site already, and it never looks at the bundle.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

import httpx
from flwr.app import Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest  # type: ignore[attr-defined]
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fedtalk.federation.engines.flower.grid import pack, unpack
from fedtalk.federation.engines.flower.processes import Child
from fedtalk.federation.engines.flower.superlink import ACQUIRE, UNREACHABLE_SECONDS

log = logging.getLogger("fedtalk")

POLL_SECONDS = 0.2
RESTART_SECONDS = 2.0
MOST_WAIT_SECONDS = 60.0
"""How long a SuperNode itself goes on trying to reach the server, before it ends and is started again."""
SENDING_SECONDS = 5.0
"""A SuperNode looks for an answer to send every half second; after the last one it gets this long."""


def serve(
    node: Child,
    address: str,
    secret: bytes,
    answer: Callable[[bytes], bytes],
    done: Callable[[], bool],
    check: Callable[[], None],
    patience_seconds: float,
) -> None:
    """Answer what the SuperNode receives until ``done``; start it again where it ends.

    It ends where the SuperLink doesn't know its key, be it not yet or, after the server was started again, not any more.

    Args:
        node: the SuperNode.
        address: of its Runtime API, on this machine.
        secret: see `secret_file`.
        answer: from a request to its answer.
        done: asked after each answer.
        check: called between requests; may raise to stop.
        patience_seconds: without a message, after which a SuperNode that ends is not started again.

    Raises:
        FedTalkError: the SuperNode ended, and nothing had come for that long.
    """
    version = RuntimeVersionHttpInterceptor(component_name="fedtalk")
    executor = RuntimeHttpClient.from_server_address(
        address, True, None, [version, SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=ACQUIRE)]
    )
    wanted, heard, told = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]), time.monotonic(), ""
    try:
        while not done():
            check()
            if node.ended:
                if time.monotonic() - heard > patience_seconds:
                    node.check()
                if told != (told := node.last_words()):
                    log.info("the SuperNode ended and is started again: %s", told)
                time.sleep(RESTART_SECONDS)
                node.start()
            try:
                response = executor.AcquireTask(wanted)
            except httpx.HTTPError:  # it is still coming up, has just ended, or another program has its port
                time.sleep(POLL_SECONDS)
                continue
            if response.HasField("task") and response.token:
                try:
                    _work(address, response.token, answer)
                except httpx.HTTPError as error:  # the SuperNode has ended, or given the task up
                    log.warning("an answer could not be handed over: %s", error)
                heard = time.monotonic()
            else:
                time.sleep(POLL_SECONDS)
    finally:
        executor.close()


def _work(address: str, token: str, answer: Callable[[bytes], bytes]) -> None:
    """One task: take its message, answer it, hand the answer to the SuperNode."""
    retries = make_simple_http_retry_invoker()
    retries.max_time = UNREACHABLE_SECONDS
    client = RuntimeHttpClient.from_server_address(
        address, True, None,
        [RuntimeVersionHttpInterceptor(component_name="fedtalk"), RuntimeTokenHttpInterceptor(token)],
        retry_invoker=retries,
    )  # fmt: skip
    beating = HeartbeatSender(make_task_heartbeat_fn_http(client))
    outcome, context = SubStatus.FAILED, None
    try:
        beating.start()
        message, context, _run, _bundle = pull_task_input(client)
        push_message(client, Message(pack(answer(unpack(message.content))), reply_to=message), context)
        outcome = SubStatus.COMPLETED
    finally:
        retries.max_tries = 1
        with contextlib.suppress(httpx.HTTPError):
            push_task_output(client, context, outcome, "")
        if beating.is_running:
            beating.stop()
        client.close()
