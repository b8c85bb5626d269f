"""Every metric that a process can tell, declared once; docs/metrics.md describes them, and a test compares the two.

Grouped by subject. A metric without samples is not told: a worker that does not touch the database has no line about
it.
"""

from __future__ import annotations

from synapse.metrics.types import Counter, Gauge, Histogram

# -- the process ---------------------------------------------------------------------------------------------------
BUILD_INFO = Gauge("synapse_build_info", "Always 1; which application this process runs.", ("app", "name", "version"))
REACTOR_LAG = Histogram(
    "synapse_reactor_lag_seconds",
    "How late a timer fired: how long the reactor was busy with something else.",
    (),
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)

# -- serving HTTP --------------------------------------------------------------------------------------------------
HTTP_REQUESTS = Counter(
    "synapse_http_server_requests_total",
    "Requests answered, by endpoint of the route table, method and status.",
    ("endpoint", "method", "code"),
)
HTTP_SECONDS = Histogram(
    "synapse_http_server_response_time_seconds",
    "From the head of a request to the end of its answer; long polls wait on purpose.",
    ("endpoint",),
)
HTTP_CPU = Counter(
    "synapse_http_server_cpu_seconds_total", "CPU time spent in handlers on the reactor's thread.", ("endpoint",)
)
HTTP_DB_STATEMENTS = Counter(
    "synapse_http_server_db_statements_total", "Database statements run for requests.", ("endpoint",)
)
HTTP_DB_SECONDS = Counter(
    "synapse_http_server_db_seconds_total", "Time that requests spent in database transactions.", ("endpoint",)
)
HTTP_RESPONSE_BYTES = Counter("synapse_http_server_response_bytes_total", "Bytes of bodies answered.", ("endpoint",))
HTTP_IN_FLIGHT = Gauge("synapse_http_server_in_flight", "Requests being handled, waiting long polls included.")
HTTP_CONNECTIONS = Gauge("synapse_http_server_connections", "Open connections of clients and proxies.")
HTTP_MALFORMED = Counter(
    "synapse_http_server_malformed_total",
    "Connections ended because what arrived was not HTTP, by reason.",
    ("reason",),
)
HTTP_RATE_LIMITED = Counter(
    "synapse_http_server_rate_limited_total", "Requests refused with 429, by the setting that says so.", ("limit",)
)

# -- messages to people --------------------------------------------------------------------------------------------
MESSAGES = Counter(
    "synapse_messages_total",
    "Mails and text messages, by medium (email, msisdn) and outcome (sent, refused for the address, failed).",
    ("medium", "outcome"),
)
MAILS_WAITING = Gauge("synapse_mails_waiting", "Mails that wait for others to be sent.")
PUSHES = Counter(
    "synapse_pushes_total",
    "Notifications to push gateways, by outcome (sent, rejected for good, failed, given_up).",
    ("outcome",),
)
PUSHERS_FAILING = Gauge("synapse_pushers_failing", "Pushers that wait to try again after a failure.")

# -- what other servers send -------------------------------------------------------------------------------------------
FEDERATION_TRANSACTIONS_RECEIVED = Counter(
    "synapse_federation_transactions_received_total", "Transactions of other servers that were taken in."
)
FEDERATION_PDUS_RECEIVED = Counter(
    "synapse_federation_pdus_received_total",
    "Events in transactions of other servers, by outcome (kept, refused, later).",
    ("outcome",),
)
FEDERATION_EDUS_RECEIVED = Counter(
    "synapse_federation_edus_received_total", "Ephemeral data in transactions of other servers, by type.", ("type",)
)

# -- asking other servers ------------------------------------------------------------------------------------------
FEDERATION_REQUESTS = Counter(
    "synapse_federation_requests_total",
    "Requests to other servers, by status or by what went wrong.",
    ("outcome",),
)
FEDERATION_REQUEST_SECONDS = Histogram(
    "synapse_federation_request_seconds", "How long other servers took to answer requests."
)
FEDERATION_KEYS_FETCHED = Counter(
    "synapse_federation_keys_fetched_total", "Servers that were asked for their keys, by what came of it.", ("outcome",)
)

# -- calling our own processes -------------------------------------------------------------------------------------
CALLS = Counter(
    "synapse_http_client_requests_total",
    "HTTP requests to other processes of this server, by status or by what went wrong.",
    ("outcome",),
)
CALL_SECONDS = Histogram(
    "synapse_http_client_seconds", "How long HTTP requests to other processes of this server took."
)
CALL_CONNECTIONS = Gauge(
    "synapse_http_client_connections", "Open connections to other processes of this server.", ("address", "state")
)

# -- the database --------------------------------------------------------------------------------------------------
DB_TRANSACTIONS = Counter("synapse_db_transactions_total", "Transactions that ended well, by name.", ("name",))
DB_STATEMENTS = Counter("synapse_db_statements_total", "Statements run, by name of the transaction.", ("name",))
DB_RETRIES = Counter(
    "synapse_db_retries_total", "Transactions begun anew after a conflict or a lost connection.", ("name",)
)
DB_SECONDS = Counter("synapse_db_seconds_total", "Time spent in transactions, by name.", ("name",))
DB_THREADS = Gauge("synapse_db_threads", "Threads with a connection to the database of their own.")
DB_WAITING = Gauge("synapse_db_waiting", "Transactions that wait for a connection.")

# -- caches --------------------------------------------------------------------------------------------------------
CACHE_HITS = Counter("synapse_cache_hits_total", "Look-ups that a cache could answer.", ("cache",))
CACHE_MISSES = Counter("synapse_cache_misses_total", "Look-ups that it could not.", ("cache",))
CACHE_EVICTIONS = Counter("synapse_cache_evictions_total", "Entries dropped for want of room.", ("cache",))
CACHE_ENTRIES = Gauge("synapse_cache_entries", "Entries in a cache.", ("cache",))
CACHE_SIZE = Gauge("synapse_cache_max_entries", "Entries that a cache may have.", ("cache",))

# -- writing events ------------------------------------------------------------------------------------------------
EVENTS_WRITTEN = Counter("synapse_events_written_total", "Events committed.")
EVENTS_BATCHES = Counter("synapse_events_batches_total", "Transactions in which events were committed.")
EVENTS_WAITING = Gauge("synapse_events_waiting", "Requests to write events that wait for the batch under way.")
EVENTS_STALE = Counter(
    "synapse_events_stale_total", "Requests that were built anew because their room had moved on meanwhile."
)
EVENTS_RECEIVED = Counter(
    "synapse_events_received_total",
    "Events of other servers that reached the writer, by what became of them.",
    ("fate",),
)
EVENTS_RESOLUTIONS = Counter(
    "synapse_events_state_resolutions_total", "Times that branches of a room with different states met."
)

# -- messages between devices --------------------------------------------------------------------------------------
TO_DEVICE_DROPPED = Counter(
    "synapse_to_device_dropped_total", "Messages dropped that devices had not come for, to make room for later ones."
)

# -- replication ---------------------------------------------------------------------------------------------------
REPLICATION_CONNECTIONS = Gauge("synapse_replication_connections", "Workers connected to this main process.")
REPLICATION_CONNECTED = Gauge(
    "synapse_replication_connected", "1 while this worker follows the main process, 0 while it does not."
)
REPLICATION_POSITION = Gauge("synapse_replication_position", "How far this process has heard of a stream.", ("stream",))
REPLICATION_ROWS_SENT = Counter(
    "synapse_replication_rows_sent_total", "Rows sent to workers, counted for each that they were sent to.", ("stream",)
)
REPLICATION_ROWS = Counter(
    "synapse_replication_rows_received_total",
    "Rows that this worker has heard of, live or read from the database to catch up.",
    ("stream", "how"),
)
REPLICATION_SKIPPED = Counter(
    "synapse_replication_skipped_total",
    "How often a worker that does not keep up was told a position in place of rows.",
    ("stream",),
)
REPLICATION_COMMANDS = Counter(
    "synapse_replication_commands_total", "Commands received over replication connections, by name.", ("command",)
)
REPLICATION_UNDELIVERED = Gauge(
    "synapse_replication_undelivered", "Commands of this worker that the main process has not confirmed."
)
LEASES = Gauge("synapse_lease_held", "1 while this process holds the lease of a duty, 0 while it stands by.", ("name",))

# -- sending to other servers ----------------------------------------------------------------------------------------
FEDERATION_TRANSACTIONS = Counter(
    "synapse_federation_transactions_sent_total",
    "Transactions to other servers, by outcome (sent, failed, refused as they were).",
    ("outcome",),
)
FEDERATION_PDUS = Counter("synapse_federation_pdus_sent_total", "Events in transactions that were acknowledged.")
FEDERATION_EDUS = Counter("synapse_federation_edus_sent_total", "EDUs in transactions that were acknowledged.")
FEDERATION_PDUS_REFUSED = Counter(
    "synapse_federation_pdus_refused_total", "Events that another server acknowledged with an error."
)
FEDERATION_QUEUES = Gauge(
    "synapse_federation_destinations",
    "Servers for which there is something to send, by state (sending, waiting for a turn, failing, catching_up).",
    ("state",),
)
FEDERATION_WAITING = Gauge(
    "synapse_federation_events_waiting", "Events that wait in memory, counted for each server that they are for."
)
FEDERATION_POSITION = Gauge(
    "synapse_federation_position",
    "Up to which position of the events stream this process has queued for other servers.",
)
FEDERATION_ACKED = Gauge(
    "synapse_federation_acked_position",
    "The same as the main process was told of it (FEDERATION_ACK), by the process that sends.",
    ("name",),
)

# -- users ---------------------------------------------------------------------------------------------------------
MAU_CURRENT = Gauge("synapse_admin_mau_current", "Users who were active within 30 days, as far as they count.")
MAU_MAX = Gauge("synapse_admin_mau_max", "How many of them there may be; 0 where nobody is limited.")

ALL: tuple[Counter | Gauge | Histogram, ...] = tuple(
    metric for metric in list(globals().values()) if isinstance(metric, Counter | Gauge | Histogram)
)
