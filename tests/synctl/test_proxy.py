"""The proxy plan: every endpoint reaches a process that serves it, whatever stands in the paths."""

import itertools
import re

import pytest

from synapse.api.routes import ENDPOINTS, WORKER_ROUTES, Affinity, App, endpoints_for, route_of
from synapse.config.listeners import Listener, ListenerResource
from synapse.synctl.proxy import Instance, plan
from tests.synctl.servers import WITH_ROUTES, instance, listener, plan_of

MAIN = instance(App.HOMESERVER, 8008)
ONE_OF_EACH = [instance(app, 8100 + number) for number, app in enumerate(WITH_ROUTES)]
APP_OF = {f"synapse_{app.value.rpartition('.')[2]}": app for app in App}
# What ids and types may be called to look like another endpoint's path.
TRICKY = ("!room:example.org", "%21a%2Fstate%2Fb:example.org", "m.members", "@join%2Fmessages:example.org", "$state")


@pytest.mark.parametrize("use_presence", [True, False])
def test_every_endpoint_reaches_a_process_that_serves_it(use_presence: bool) -> None:
    plan = plan_of(MAIN, *ONE_OF_EACH, use_presence=use_presence)
    assert not plan.remarks
    for endpoint in ENDPOINTS:
        names = re.findall(r"\{(\w+)\}", endpoint.path.replace("{version}", ""))
        for version, values in itertools.product(
            endpoint.versions or (None,), itertools.product(TRICKY, repeat=len(names))
        ):
            path = endpoint.example(version, **dict(zip(names, values, strict=True)))
            for method in endpoint.methods:
                app = APP_OF[plan.backend_for(method, path)]
                assert endpoint in endpoints_for(app, use_presence=use_presence), (method, path, app)


@pytest.mark.parametrize("use_presence", [True, False])
def test_plan_agrees_with_the_route_table(use_presence: bool) -> None:
    plan = plan_of(MAIN, *ONE_OF_EACH, use_presence=use_presence)
    for endpoint in ENDPOINTS:
        for version, method in itertools.product(endpoint.versions or (None,), endpoint.methods):
            path = endpoint.example(version)
            route = route_of(method, path, use_presence=use_presence)
            assert APP_OF[plan.backend_for(method, path)] is (route.app if route else App.HOMESERVER)


def test_presence_goes_to_the_frontend_proxy_only_without_presence() -> None:
    path = "/_matrix/client/r0/presence/@a:example.org/status"
    assert plan_of(MAIN, *ONE_OF_EACH, use_presence=False).backend_for("PUT", path) == "synapse_frontend_proxy"
    assert plan_of(MAIN, *ONE_OF_EACH, use_presence=True).backend_for("PUT", path) == "synapse_homeserver"


def test_push_rules_go_to_the_client_reader_for_reading_alone() -> None:
    plan = plan_of(MAIN, *ONE_OF_EACH)
    path = "/_matrix/client/r0/pushrules/global/override/.m.rule.master"
    assert [plan.backend_for(method, path) for method in ("GET", "HEAD", "PUT", "DELETE")] == [
        "synapse_client_reader",
        "synapse_client_reader",
        "synapse_homeserver",
        "synapse_homeserver",
    ]


def test_one_instance_needs_no_choice() -> None:
    assert plan_of(MAIN, *ONE_OF_EACH).affinities == {Affinity.NONE}


def test_several_instances_are_chosen_as_the_routes_say() -> None:
    twice = [instance(app, 8200 + 10 * n + m, m) for n, app in enumerate(WITH_ROUTES) for m in (1, 2)]
    plan = plan_of(MAIN, *twice)
    backends = {backend.name: backend for backend in plan.backends}
    assert plan.affinities == {Affinity.NONE, Affinity.USER, Affinity.ROOM, Affinity.ONE}
    for route in WORKER_ROUTES:
        if route.app in WITH_ROUTES:
            path = re.sub(
                r"\(([^|)]+)[^)]*\)|\[\^/\]\+|\.\*|[$^]", lambda m: m[1] or ("x" if m[0][0] != "$" else ""), route.regex
            )
            path = path.replace("x/_matrix", "/_matrix").replace("x/_synapse", "/_synapse")
            backend = backends[plan.backend_for((*route.methods, "GET")[0], path)]
            assert backend.affinity is route.affinity, path
            assert len(backend.servers) == (1 if route.affinity is Affinity.ONE else 2)


def test_without_workers_everything_is_the_main_processs() -> None:
    plan = plan_of(MAIN)
    assert [backend.name for backend in plan.backends] == ["synapse_homeserver"]
    assert plan.rules == ()


def test_federation_goes_to_the_listener_that_carries_it() -> None:
    main = Instance("main", App.HOMESERVER, (listener(8008, "client"), listener(8448, "federation")))
    plan = plan_of(main)
    backends = {backend.name: backend.servers[0].address for backend in plan.backends}
    assert backends[plan.backend_for("GET", "/_matrix/federation/v1/version")] == "127.0.0.1:8448"
    assert backends[plan.backend_for("GET", "/_matrix/key/v2/server")] == "127.0.0.1:8448"
    assert backends[plan.backend_for("GET", "/_matrix/client/versions")] == "127.0.0.1:8008"


def test_generic_workers_stand_in_for_applications_that_are_missing() -> None:
    generic = instance(App.GENERIC_WORKER, 8300)
    plan = plan_of(MAIN, instance(App.CLIENT_READER, 8301), generic)
    servers = {backend.name: [server.name for server in backend.servers] for backend in plan.backends}
    assert servers[plan.backend_for("GET", "/_matrix/client/v3/sync")] == ["generic_worker1"]
    assert servers[plan.backend_for("POST", "/_matrix/client/v3/login")] == ["client_reader1"]
    # The generic worker's listener does not carry federation.
    assert plan.backend_for("GET", "/_matrix/federation/v1/event/$x") == "synapse_homeserver"


def test_a_listener_that_cannot_be_reached_is_remarked() -> None:
    worker = Instance("sync", App.SYNCHROTRON, (listener(8083, "client", tls=True), listener(9100, "metrics")))
    plan = plan_of(MAIN, worker)
    assert plan.backend_for("GET", "/_matrix/client/v3/sync") == "synapse_homeserver"
    assert "synapse.app.synchrotron" in plan.remarks[0]


def test_a_main_process_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="no http listener"):
        plan_of(Instance("main", App.HOMESERVER, (listener(9093, "replication"),)))


@pytest.mark.parametrize(
    ("address", "expected"), [("0.0.0.0", "127.0.0.1:8083"), ("::", "[::1]:8083"), ("10.0.0.1", "10.0.0.1:8083")]
)
def test_addresses_as_a_proxy_reaches_them(address: str, expected: str) -> None:
    worker = Instance("sync", App.SYNCHROTRON, (listener(8083, "client", address=address),))
    backends = {backend.name: backend for backend in plan_of(MAIN, worker).backends}
    assert backends["synapse_synchrotron"].servers[0].address == expected


def test_unix_sockets() -> None:
    socket = Listener(type="http", path="/run/sync.sock", resources=(ListenerResource(names=("client",)),))
    backends = {b.name: b for b in plan_of(MAIN, Instance("sync", App.SYNCHROTRON, (socket,))).backends}
    assert backends["synapse_synchrotron"].servers[0].is_socket


@pytest.mark.parametrize("uploads", [1 << 20, 500 << 20])
def test_no_body_is_refused_that_an_endpoint_takes(uploads: int) -> None:
    found = plan(MAIN, [], server_name="example.org", use_presence=True, max_upload_size=uploads)
    assert found.max_body == max(uploads, 16 << 20)
    assert found.max_body >= max(endpoint.max_body for endpoint in ENDPOINTS)
