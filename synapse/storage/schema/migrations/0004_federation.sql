-- What federation needs: one section a subject. full.sql has the same tables.
-- Everything here only adds, so that processes of version 1 may run on it (COMPAT_VERSION stays 1, and a test holds it).

---------------------------------------------------------------- events

ALTER TABLE events ADD COLUMN relay boolean;

---------------------------------------------------------------- servers in rooms

CREATE INDEX current_state_servers ON current_state (substr(state_key, strpos(state_key, ':') + 1), room_id)
    WHERE type = 'm.room.member' AND membership = 'join';
CREATE INDEX current_state_invited_servers ON current_state (substr(state_key, strpos(state_key, ':') + 1), room_id)
    WHERE type = 'm.room.member' AND membership = 'invite';
CREATE INDEX current_state_gone ON current_state (substr(state_key, strpos(state_key, ':') + 1), room_id, stream_ordering)
    WHERE type = 'm.room.member' AND membership <> 'join';

---------------------------------------------------------------- devices and other servers

ALTER TABLE device_lists_stream ADD COLUMN device_ids text[];

CREATE TABLE to_device_outbox (
    destination text NOT NULL,
    stream_id bigint NOT NULL,
    message_id text NOT NULL,
    content text NOT NULL,
    PRIMARY KEY (destination, stream_id, message_id)
);
CREATE INDEX to_device_outbox_stream ON to_device_outbox (stream_id);
CREATE TABLE to_device_received (
    origin text NOT NULL,
    message_id text NOT NULL,
    received_ts bigint NOT NULL,
    PRIMARY KEY (origin, message_id)
);
CREATE INDEX to_device_received_ts ON to_device_received (received_ts);

CREATE TABLE device_lists_due (
    destination text NOT NULL,
    user_id text NOT NULL,
    stream_id bigint NOT NULL,
    PRIMARY KEY (destination, user_id)
);
CREATE TABLE device_lists_sent (
    destination text NOT NULL,
    user_id text NOT NULL,
    stream_id bigint NOT NULL,
    update_id bigint,
    PRIMARY KEY (destination, user_id)
);

CREATE TABLE remote_device_lists (
    user_id text PRIMARY KEY,
    base_id bigint NOT NULL,
    applied_ids bigint[] NOT NULL DEFAULT '{}',
    stale boolean NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    retry_ts bigint NOT NULL DEFAULT 0
);
CREATE INDEX remote_device_lists_stale ON remote_device_lists (retry_ts) WHERE stale;
CREATE INDEX remote_device_lists_server ON remote_device_lists (substr(user_id, strpos(user_id, ':') + 1));
CREATE TABLE remote_devices (
    user_id text NOT NULL,
    device_id text NOT NULL,
    key_json text,
    display_name text,
    PRIMARY KEY (user_id, device_id)
);

---------------------------------------------------------------- sending to other servers

CREATE TABLE federation_sender (         -- who may send: a number that each one who takes the duty over raises
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL
);
CREATE TABLE federation_audiences (      -- sets of servers that events are sent to
    audience bytea NOT NULL,             -- a hash of the servers
    destination text NOT NULL,
    PRIMARY KEY (audience, destination)
);
CREATE INDEX federation_audiences_destination ON federation_audiences (destination);
CREATE TABLE federation_outgoing (       -- events for other servers, for an hour or so; see federation_missed
    stream_ordering bigint PRIMARY KEY,
    room_id text NOT NULL,
    audience bytea NOT NULL,
    logged_ts bigint NOT NULL
);
CREATE INDEX federation_outgoing_audience ON federation_outgoing (audience, stream_ordering);
CREATE TABLE federation_queues (         -- how far each server has come: rewritten with every transaction
    destination text PRIMARY KEY,
    acked bigint NOT NULL,               -- of federation_outgoing, it has what is for it, or it is in federation_missed
    sending_until bigint,                -- where the transaction under way, of that id, ends; NULL: none is
    sending_txn text
) WITH (fillfactor = 40);
CREATE TABLE federation_missed (         -- the last event of each room that a server was away for
    destination text NOT NULL,
    room_id text NOT NULL,
    stream_ordering bigint NOT NULL,
    PRIMARY KEY (destination, room_id)
);

---------------------------------------------------------------- transactions of other servers

CREATE TABLE received_transactions (
    origin text NOT NULL,
    txn_id text NOT NULL,
    received_ts bigint NOT NULL,
    answer text NOT NULL,
    PRIMARY KEY (origin, txn_id)
);
CREATE INDEX received_transactions_ts ON received_transactions (received_ts);
CREATE TABLE unfinished_pdus (           -- events whose transactions were answered before it was known what becomes of them
    origin text NOT NULL,
    room_id text NOT NULL,
    event_id text NOT NULL,
    pdu text NOT NULL,                   -- JSON, as it came
    received_ts bigint NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    retry_at bigint NOT NULL,            -- when somebody takes the event up, unless whoever works on it says otherwise
    PRIMARY KEY (origin, event_id)
);
CREATE INDEX unfinished_pdus_retry ON unfinished_pdus (retry_at);

---------------------------------------------------------------- other servers

CREATE TABLE destinations ( -- those that do not answer
    destination text PRIMARY KEY,
    failing_since bigint NOT NULL,
    retry_last_ts bigint NOT NULL,
    retry_interval bigint NOT NULL,
    retry_at bigint NOT NULL
);
CREATE INDEX destinations_retry ON destinations (retry_at);
CREATE TABLE server_keys (
    server_name text NOT NULL,
    key_id text NOT NULL,
    verify_key bytea NOT NULL,
    good_until bigint NOT NULL,          -- what it has signed later is not to be believed
    is_old boolean NOT NULL,
    answer text,                         -- the JSON that published it, as its server has signed it
    answer_until bigint NOT NULL,
    answer_ts bigint NOT NULL,
    used_ts bigint NOT NULL,
    PRIMARY KEY (server_name, key_id)
);
CREATE INDEX server_keys_use ON server_keys (used_ts);

---------------------------------------------------------------- what other servers' events mean

ALTER TABLE events ADD COLUMN after_gap boolean NOT NULL DEFAULT false;
ALTER TABLE events ADD COLUMN fills bigint;
CREATE INDEX events_room_fills ON events (room_id, fills) WHERE fills IS NOT NULL;
ALTER TABLE backward_extremities ADD COLUMN depth bigint;
ALTER TABLE backward_extremities ADD COLUMN stream_ordering bigint;
CREATE TABLE pending_redactions (        -- redactions that came before what they redact
    room_id text NOT NULL,
    event_id text NOT NULL,              -- what is to be redacted
    redaction_id text NOT NULL,
    server_name text,                    -- whose events it may redact; NULL: everybody's
    stream_ordering bigint NOT NULL,     -- of the redaction
    PRIMARY KEY (room_id, event_id, redaction_id)
);
CREATE INDEX current_state_deltas_members ON current_state_deltas (state_key, room_id, stream_ordering)
    WHERE type = 'm.room.member';
