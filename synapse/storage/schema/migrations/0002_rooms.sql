-- What rooms need to be found, read and kept in order: one section a subject. full.sql has the same tables.
-- Everything here only adds, so that processes of version 1 may run on it (COMPAT_VERSION stays 1, and a test holds it).

---------------------------------------------------------------- searching messages

CREATE TABLE event_search (
    stream_ordering bigint PRIMARY KEY,
    room_id text NOT NULL,
    words tsvector NOT NULL
);
CREATE INDEX event_search_words ON event_search USING gin (words);

-- New events are indexed from here on; those that exist follow in the background.
INSERT INTO stream_followers (follower, stream, position)
    SELECT 'event_search', 'events', GREATEST(max(stream_ordering), 0) FROM events;
INSERT INTO background_updates (name) VALUES ('event_search');

---------------------------------------------------------------- reports

CREATE TABLE event_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ts bigint NOT NULL,
    user_id text NOT NULL,
    room_id text NOT NULL,
    event_id text NOT NULL,
    score integer,
    reason text
);
CREATE TABLE room_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ts bigint NOT NULL,
    user_id text NOT NULL,
    room_id text NOT NULL,
    reason text NOT NULL
);
CREATE TABLE user_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ts bigint NOT NULL,
    user_id text NOT NULL,
    target_user_id text NOT NULL,
    reason text NOT NULL
);

---------------------------------------------------------------- deactivated accounts

CREATE TABLE departing_users (
    user_id text PRIMARY KEY
);

---------------------------------------------------------------- relations and threads

ALTER TABLE events ADD COLUMN replaces text, ADD COLUMN is_parent boolean NOT NULL DEFAULT false;
CREATE INDEX events_room_ts ON events (room_id, origin_server_ts, stream_ordering) WHERE NOT outlier;
DROP INDEX events_relations;
CREATE INDEX events_children ON events (relates_to, relation_type, depth, stream_ordering)
    WHERE relates_to IS NOT NULL;
CREATE INDEX events_children_in_order ON events (relates_to, depth, stream_ordering) WHERE relates_to IS NOT NULL;
CREATE TABLE threads (
    room_id text NOT NULL,
    root_id text NOT NULL,
    depth bigint,
    stream_ordering bigint,
    PRIMARY KEY (room_id, root_id)
);
CREATE INDEX threads_latest ON threads (room_id, depth, stream_ordering) WHERE depth IS NOT NULL;
CREATE TABLE thread_senders (
    room_id text NOT NULL,
    root_id text NOT NULL,
    sender text NOT NULL,
    events integer NOT NULL,
    PRIMARY KEY (room_id, root_id, sender)
);

-- What new events are written with, those that exist get in the background.
INSERT INTO background_updates (name) VALUES ('event_relations');

---------------------------------------------------------------- state resolution

CREATE INDEX event_auth_cited ON event_auth (auth_event_id);

---------------------------------------------------------------- deleted account data

ALTER TABLE account_data ADD COLUMN deleted boolean NOT NULL DEFAULT false;

---------------------------------------------------------------- unread

-- Every message paid for it, and nothing asked by it.
DROP INDEX push_actions_user_stream;
