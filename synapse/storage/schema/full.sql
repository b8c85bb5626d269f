-- The whole schema, for a new database. Migrations in migrations/ bring an older database to the same shape.
-- Times are milliseconds since the epoch; stream positions are bigint and handed out by the main process.

CREATE TABLE schema_version (
    version integer NOT NULL,            -- the last migration applied
    compat_version integer NOT NULL,     -- the oldest release of the schema whose code may still run on it
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE background_updates (      -- what is still to be done; a finished update has no row
    name text PRIMARY KEY,
    ordering integer NOT NULL DEFAULT 0, -- lower ones first
    depends_on text,
    progress jsonb NOT NULL DEFAULT '{}'
);

-- What the server was created as: a database belongs to one server name.
CREATE TABLE server_identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    server_name text NOT NULL
);

---------------------------------------------------------------- accounts

CREATE TABLE users (
    user_id text PRIMARY KEY,
    password_hash text,                  -- NULL: no password login
    created_ts bigint NOT NULL,
    is_guest boolean NOT NULL DEFAULT false,
    admin boolean NOT NULL DEFAULT false,
    user_type text,
    app_service_id text,
    deactivated boolean NOT NULL DEFAULT false,
    erased boolean NOT NULL DEFAULT false,
    locked boolean NOT NULL DEFAULT false,
    suspended boolean NOT NULL DEFAULT false,
    consent_version text,                -- of the policy that the user agreed to the last time
    consent_ts bigint,
    consent_notice_sent text,            -- the version of the policy that a server notice told of
    valid_until_ts bigint                -- when the account expires; NULL: never
);

CREATE INDEX users_expiry ON users (valid_until_ts) WHERE valid_until_ts IS NOT NULL;

CREATE TABLE account_renewals (          -- how the validity of an account can be renewed
    user_id text PRIMARY KEY,
    told_until_ts bigint NOT NULL,       -- the end of validity that the user was told of by mail
    token_hash bytea NOT NULL UNIQUE,    -- SHA-256 of what stood in the mail
    used_ts bigint                       -- when it was used; it has no effect again
);

CREATE TABLE server_notice_rooms (       -- in which room the server tells whom something
    user_id text PRIMARY KEY,
    room_id text NOT NULL UNIQUE,
    limit_event_id text                  -- the notice that the server is at its limit, while it is
);

CREATE TABLE monthly_active_users (
    user_id text PRIMARY KEY,
    last_active_ts bigint NOT NULL
);
CREATE INDEX monthly_active_users_last_active ON monthly_active_users (last_active_ts);

-- Deactivated users who are still to be taken out of their rooms.
CREATE TABLE departing_users (
    user_id text PRIMARY KEY
);

CREATE TABLE profiles (
    user_id text PRIMARY KEY,            -- local users only
    display_name text,
    avatar_url text,
    fields jsonb NOT NULL DEFAULT '{}'   -- custom profile fields
);

CREATE TABLE devices (
    user_id text NOT NULL,
    device_id text NOT NULL,
    display_name text,
    created_ts bigint NOT NULL,
    last_seen_ts bigint,
    last_seen_ip text,
    last_seen_user_agent text,
    PRIMARY KEY (user_id, device_id)
);

CREATE TABLE access_tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token_hash bytea NOT NULL UNIQUE,    -- SHA-256
    user_id text NOT NULL,
    device_id text,                      -- NULL: a token without a device (admin API, guests of old)
    created_ts bigint NOT NULL,
    expires_ts bigint,
    refresh_token_id bigint,
    app_service_id text                  -- that acts for the user; the hash is no token's then
);
CREATE INDEX access_tokens_user ON access_tokens (user_id, device_id);
CREATE INDEX access_tokens_expiry ON access_tokens (expires_ts) WHERE device_id IS NULL AND expires_ts IS NOT NULL;
CREATE INDEX access_tokens_refresh ON access_tokens (refresh_token_id) WHERE refresh_token_id IS NOT NULL;

CREATE TABLE refresh_tokens (            -- at most three of a session: see synapse.storage.refresh_tokens
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token_hash bytea NOT NULL UNIQUE,    -- SHA-256
    user_id text NOT NULL,
    device_id text NOT NULL,
    expires_ts bigint,
    session_expires_ts bigint,
    next_token_id bigint,                -- the one that it was exchanged for
    used boolean NOT NULL DEFAULT false  -- it, or the access token that was given out with it
);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id, device_id);
CREATE INDEX refresh_tokens_next ON refresh_tokens (next_token_id) WHERE next_token_id IS NOT NULL;

CREATE TABLE user_ips (
    user_id text NOT NULL,
    device_id text NOT NULL DEFAULT '',
    ip text NOT NULL,
    user_agent text NOT NULL,
    last_seen_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, ip, user_agent)
);
CREATE INDEX user_ips_last_seen ON user_ips (last_seen_ts);

-- Sessions of user-interactive authentication: their steps may land on different processes.
CREATE TABLE ui_auth_sessions (
    session_id text PRIMARY KEY,
    created_ts bigint NOT NULL,
    client_dict jsonb NOT NULL,
    uri text NOT NULL,
    method text NOT NULL,
    description text NOT NULL,
    server_dict jsonb NOT NULL DEFAULT '{}',
    completed jsonb NOT NULL DEFAULT '{}',
    user_id text                         -- whose it is; NULL as long as nobody is logged in or has proven who they are
);
CREATE INDEX ui_auth_sessions_user ON ui_auth_sessions (user_id);
CREATE INDEX ui_auth_sessions_created ON ui_auth_sessions (created_ts);

-- When the user of a device last proved to be so (`ui_auth.session_timeout`).
CREATE TABLE fresh_authentications (
    user_id text NOT NULL,
    device_id text NOT NULL,
    proven_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- Who knows one may register. How often one is in use just now is in ui_auth_sessions.
CREATE TABLE registration_tokens (
    token text PRIMARY KEY,
    uses_allowed bigint,                 -- NULL: any number
    completed bigint NOT NULL DEFAULT 0,
    expiry_ts bigint                     -- NULL: never
);
CREATE INDEX ui_auth_sessions_registration_token ON ui_auth_sessions ((completed ->> 'm.login.registration_token'))
    WHERE (completed ->> 'm.login.registration_token') IS NOT NULL;

-- New users who have yet to join the rooms that everybody is in.
CREATE TABLE arriving_users (
    user_id text PRIMARY KEY
);

-- Tokens of m.login.token, each good for one log-in.
CREATE TABLE login_tokens (
    token_hash bytea PRIMARY KEY,        -- SHA-256
    user_id text NOT NULL,
    expires_ts bigint NOT NULL,
    auth_provider text,                  -- the identity provider that the user came by, and its session there
    provider_session text
);
CREATE INDEX login_tokens_expiry ON login_tokens (expires_ts);

-- Whom identity providers vouch for, and which user of this server that is.
CREATE TABLE user_external_ids (
    auth_provider text NOT NULL,
    external_id text NOT NULL,
    user_id text NOT NULL,
    PRIMARY KEY (auth_provider, external_id)
);
CREATE INDEX user_external_ids_user ON user_external_ids (user_id);

-- Log-ins by single sign-on that are under way.
CREATE TABLE sso_sessions (
    session_hash bytea NOT NULL,      -- SHA-256 of the id that travels in URLs, and of the browser's cookie
    browser_hash bytea NOT NULL,
    expires_ts bigint NOT NULL,
    content jsonb NOT NULL,
    PRIMARY KEY (session_hash, browser_hash)
);
CREATE INDEX sso_sessions_expiry ON sso_sessions (expires_ts);

-- Which session at an identity provider a device was logged in by.
CREATE TABLE sso_devices (
    user_id text NOT NULL,
    device_id text NOT NULL,
    auth_provider text NOT NULL,
    provider_session text NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
CREATE INDEX sso_devices_session ON sso_devices (auth_provider, provider_session);

CREATE TABLE user_threepids (            -- addresses that users have proved to have
    medium text NOT NULL,                -- email, msisdn
    address text NOT NULL,               -- canonical
    user_id text NOT NULL,
    validated_ts bigint NOT NULL,
    added_ts bigint NOT NULL,
    PRIMARY KEY (medium, address)
);
CREATE INDEX user_threepids_user ON user_threepids (user_id);

CREATE TABLE bound_threepids (           -- which identity servers were told that an address is a user's
    user_id text NOT NULL,
    medium text NOT NULL,
    address text NOT NULL,
    id_server text NOT NULL,
    PRIMARY KEY (user_id, medium, address, id_server)
);

-- Somebody is proving to have an address: by what was sent there, under a secret that the client chose.
CREATE TABLE threepid_validation_sessions (
    session_id text PRIMARY KEY,
    purpose text NOT NULL,               -- registration, password_reset, add_threepid
    medium text NOT NULL,
    address text NOT NULL,
    client_secret_hash bytea NOT NULL,   -- SHA-256
    next_link text,
    last_send_attempt bigint,
    token_hashes bytea[] NOT NULL DEFAULT '{}', -- SHA-256 of what was sent, newest first
    attempts integer NOT NULL DEFAULT 0, -- tokens that came since the last was sent
    expires_ts bigint NOT NULL,
    validated_ts bigint,
    remote_sid text                      -- the session at the identity server that sends messages for us
);
CREATE UNIQUE INDEX threepid_validation_sessions_wish
    ON threepid_validation_sessions (client_secret_hash, address, medium, purpose);
CREATE INDEX threepid_validation_sessions_expiry ON threepid_validation_sessions (expires_ts);

CREATE TABLE filters (
    user_id text NOT NULL,
    filter_id bigint NOT NULL,
    definition jsonb NOT NULL,
    definition_hash bytea NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);
CREATE UNIQUE INDEX filters_by_hash ON filters (user_id, definition_hash);

CREATE TABLE account_data (              -- room_id '' is global
    user_id text NOT NULL,
    room_id text NOT NULL DEFAULT '',
    type text NOT NULL,
    content text NOT NULL,               -- JSON as given
    stream_id bigint NOT NULL,
    deleted boolean NOT NULL DEFAULT false, -- kept to be told of; content is {}
    PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_stream ON account_data (stream_id);
CREATE INDEX account_data_user_stream ON account_data (user_id, stream_id);

-- A user's own rules and changes to the default ones; the defaults are code.
CREATE TABLE push_rules (
    user_id text NOT NULL,
    kind text NOT NULL,
    rule_id text NOT NULL,
    position integer NOT NULL DEFAULT 0, -- order among the user's own rules of that kind, the highest wins
    conditions jsonb,                    -- the pattern of a content rule; NULL for a changed default rule
    actions jsonb,                       -- NULL: the default's
    enabled boolean,                     -- NULL: the default's
    is_default boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, kind, rule_id)
);
CREATE TABLE push_rules_stream (
    stream_id bigint PRIMARY KEY,
    user_id text NOT NULL
);
CREATE INDEX push_rules_stream_user ON push_rules_stream (user_id, stream_id);

---------------------------------------------------------------- keys and devices' messages

CREATE TABLE device_keys (
    user_id text NOT NULL,
    device_id text NOT NULL,
    key_json text NOT NULL,
    uploaded_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
CREATE TABLE one_time_keys (
    user_id text NOT NULL,
    device_id text NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    key_json text NOT NULL,
    uploaded_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
);
CREATE TABLE fallback_keys (
    user_id text NOT NULL,
    device_id text NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    key_json text NOT NULL,
    used boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, device_id, algorithm)
);
CREATE TABLE device_lists_stream (       -- "this user's devices or keys changed"
    stream_id bigint PRIMARY KEY,
    user_id text NOT NULL,
    device_id text,                      -- where it is one
    device_ids text[]                    -- which; empty: the keys of the user as such; NULL (of older rows): any
);
CREATE INDEX device_lists_stream_user ON device_lists_stream (user_id, stream_id);

CREATE INDEX one_time_keys_oldest ON one_time_keys (user_id, device_id, algorithm, uploaded_ts, key_id);
CREATE TABLE claimed_keys (              -- one-time keys given out of late, in case that they are uploaded again
    user_id text NOT NULL,
    device_id text NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    key_hash bytea NOT NULL,             -- SHA-256 of the key's JSON
    claimed_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
);
CREATE INDEX claimed_keys_ts ON claimed_keys (claimed_ts);

-- Who signs what: the keys of users as such, the latest of each usage; also those of other servers' users whose devices
-- are known here. Signatures, also those that came with a key, are in key_signatures, each once.
CREATE TABLE cross_signing_keys (
    user_id text NOT NULL,
    usage text NOT NULL,                 -- master, self_signing, user_signing
    public_key text NOT NULL,            -- unpadded base64
    key_json text NOT NULL,              -- as uploaded, without signatures
    uploaded_ts bigint NOT NULL,
    replaceable_until_ts bigint,         -- of a master key: until then it may be replaced without proof of identity
    PRIMARY KEY (user_id, usage)
);
CREATE TABLE key_signatures (
    target_user_id text NOT NULL,        -- whose key is signed
    target_id text NOT NULL,             -- its public key, or the device id
    signer_user_id text NOT NULL,
    key_id text NOT NULL,                -- of the key that signs, with its algorithm: ed25519:ABC
    signature text NOT NULL,
    PRIMARY KEY (target_user_id, target_id, signer_user_id, key_id)
);
CREATE INDEX key_signatures_signer ON key_signatures (signer_user_id, key_id);
CREATE TABLE device_lists_private (      -- of the stream device_lists: changes that one user alone can see
    stream_id bigint PRIMARY KEY,
    user_id text NOT NULL,               -- who can
    changed_user_ids text[] NOT NULL     -- whose keys look different to them
);
CREATE INDEX device_lists_private_user ON device_lists_private (user_id, stream_id);

CREATE TABLE to_device_messages (
    stream_id bigint NOT NULL,
    user_id text NOT NULL,
    device_id text NOT NULL,
    message text NOT NULL,               -- {"type", "sender", "content"}
    PRIMARY KEY (user_id, device_id, stream_id)
);
CREATE INDEX to_device_messages_stream ON to_device_messages (stream_id);
CREATE TABLE to_device_txns (
    user_id text NOT NULL,
    device_id text NOT NULL,
    txn_id text NOT NULL,
    received_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, txn_id)
);

---------------------------------------------------------------- devices and other servers

CREATE TABLE to_device_outbox (          -- messages for other servers' devices, until their servers have them
    destination text NOT NULL,
    stream_id bigint NOT NULL,           -- of the stream to_device
    message_id text NOT NULL,
    content text NOT NULL,               -- of an EDU m.direct_to_device
    PRIMARY KEY (destination, stream_id, message_id)
);
CREATE INDEX to_device_outbox_stream ON to_device_outbox (stream_id);
CREATE TABLE to_device_received (        -- EDUs m.direct_to_device of late, each of which counts once
    origin text NOT NULL,
    message_id text NOT NULL,
    received_ts bigint NOT NULL,
    PRIMARY KEY (origin, message_id)
);
CREATE INDEX to_device_received_ts ON to_device_received (received_ts);

CREATE TABLE device_lists_due (          -- which servers are to be told of which local users' devices
    destination text NOT NULL,
    user_id text NOT NULL,
    stream_id bigint NOT NULL,           -- the change of which; 0: they have come to share a room
    PRIMARY KEY (destination, user_id)
);
CREATE TABLE device_lists_sent (         -- what servers know of local users' devices
    destination text NOT NULL,
    user_id text NOT NULL,
    stream_id bigint NOT NULL,           -- everything up to this position
    update_id bigint,                    -- stream_id of the last m.device_list_update, or of the list that was given
    PRIMARY KEY (destination, user_id)
);

CREATE TABLE remote_device_lists (       -- other servers' users whose devices are known here
    user_id text PRIMARY KEY,
    base_id bigint NOT NULL,             -- stream_id of the list as it was fetched; -1: it never was
    applied_ids bigint[] NOT NULL DEFAULT '{}', -- stream_ids of the latest updates that came to it
    stale boolean NOT NULL,              -- an update is missing: it has to be fetched anew
    failures integer NOT NULL DEFAULT 0, -- times that fetching it failed, and when to try again
    retry_ts bigint NOT NULL DEFAULT 0
);
CREATE INDEX remote_device_lists_stale ON remote_device_lists (retry_ts) WHERE stale;
CREATE INDEX remote_device_lists_server ON remote_device_lists (substr(user_id, strpos(user_id, ':') + 1));
CREATE TABLE remote_devices (
    user_id text NOT NULL,
    device_id text NOT NULL,
    key_json text,                       -- NULL: it has published no keys
    display_name text,
    PRIMARY KEY (user_id, device_id)
);

---------------------------------------------------------------- SAML

CREATE TABLE saml_assertions (           -- those that have been used
    assertion_hash bytea PRIMARY KEY,    -- SHA-256 of the id
    expires_ts bigint NOT NULL
);
CREATE INDEX saml_assertions_expiry ON saml_assertions (expires_ts);

---------------------------------------------------------------- dehydrated devices

CREATE TABLE dehydrated_devices (        -- what devices that nobody is logged in with are made of
    user_id text PRIMARY KEY,
    device_id text NOT NULL,
    device_data text NOT NULL            -- JSON as given
);

---------------------------------------------------------------- OpenID tokens

CREATE TABLE openid_tokens (             -- by which users prove elsewhere who they are
    token_hash bytea PRIMARY KEY,        -- SHA-256
    user_id text NOT NULL,
    expires_ts bigint NOT NULL
);
CREATE INDEX openid_tokens_user ON openid_tokens (user_id, expires_ts);
CREATE INDEX openid_tokens_expiry ON openid_tokens (expires_ts);

---------------------------------------------------------------- key backups

CREATE TABLE key_backups (
    user_id text NOT NULL,
    version bigint NOT NULL,
    algorithm text NOT NULL,
    auth_data text NOT NULL,             -- JSON as given
    etag bigint NOT NULL DEFAULT 0,      -- grows with every change of its keys
    key_count bigint NOT NULL DEFAULT 0,
    key_bytes bigint NOT NULL DEFAULT 0, -- of session data
    deleted boolean NOT NULL DEFAULT false, -- the row stays while it is the latest, so that its version is not given out again
    PRIMARY KEY (user_id, version)
);
CREATE TABLE key_backup_sessions (
    user_id text NOT NULL,
    version bigint NOT NULL,
    room_id text NOT NULL,
    session_id text NOT NULL,
    first_message_index bigint NOT NULL,
    forwarded_count bigint NOT NULL,
    is_verified boolean NOT NULL,
    session_data text NOT NULL,          -- JSON as given
    PRIMARY KEY (user_id, version, room_id, session_id)
);

---------------------------------------------------------------- events

CREATE TABLE rooms (
    room_id text PRIMARY KEY,
    creator text,
    room_version text NOT NULL,
    is_public boolean NOT NULL DEFAULT false,   -- listed in the room directory
    created_ts bigint NOT NULL
);
CREATE INDEX rooms_public ON rooms (room_id) WHERE is_public;

CREATE TABLE room_aliases (
    alias text PRIMARY KEY,
    room_id text NOT NULL,
    creator text NOT NULL
);
CREATE INDEX room_aliases_room ON room_aliases (room_id);

CREATE TABLE events (
    stream_ordering bigint PRIMARY KEY,  -- negative for history fetched later
    event_id text NOT NULL UNIQUE,
    room_id text NOT NULL,
    depth bigint NOT NULL,               -- with stream_ordering, the order of the timeline
    type text NOT NULL,
    state_key text,
    sender text NOT NULL,
    origin_server_ts bigint NOT NULL,
    received_ts bigint NOT NULL,
    state_group bigint,                  -- the state after the event; NULL for outliers
    outlier boolean NOT NULL DEFAULT false,
    soft_failed boolean NOT NULL DEFAULT false,
    rejected text,                       -- why, where it was rejected
    redacted_by text,                    -- event id of the redaction in force
    contains_url boolean NOT NULL DEFAULT false,
    relates_to text,                     -- m.relates_to.event_id
    relation_type text,
    replaces text,                       -- the state event that this one took the place of
    is_parent boolean NOT NULL DEFAULT false, -- others relate to it in a way that is aggregated
    json text NOT NULL,                  -- the event as signed, canonical JSON
    relay boolean,                       -- whether other servers are sent it; NULL: if its sender is one of ours
    after_gap boolean NOT NULL DEFAULT false, -- what came just before it in the room is not here, or came later
    fills bigint                         -- of history: the position at which it was missing, just before who refers to it
);
CREATE INDEX events_room_stream ON events (room_id, stream_ordering) WHERE NOT outlier;
CREATE INDEX events_room_depth ON events (room_id, depth, stream_ordering) WHERE NOT outlier;
CREATE INDEX events_room_ts ON events (room_id, origin_server_ts, stream_ordering) WHERE NOT outlier;
CREATE INDEX events_room_fills ON events (room_id, fills) WHERE fills IS NOT NULL;
CREATE INDEX events_children ON events (relates_to, relation_type, depth, stream_ordering)
    WHERE relates_to IS NOT NULL;
CREATE INDEX events_children_in_order ON events (relates_to, depth, stream_ordering) WHERE relates_to IS NOT NULL;

CREATE TABLE threads (                   -- where the latest event of each thread stands
    room_id text NOT NULL,
    root_id text NOT NULL,
    depth bigint,                        -- NULL: all of its events are redacted
    stream_ordering bigint,
    PRIMARY KEY (room_id, root_id)
);
CREATE INDEX threads_latest ON threads (room_id, depth, stream_ordering) WHERE depth IS NOT NULL;
CREATE TABLE thread_senders (            -- who has how many events in a thread; those that are redacted do not count
    room_id text NOT NULL,
    root_id text NOT NULL,
    sender text NOT NULL,
    events integer NOT NULL,
    PRIMARY KEY (room_id, root_id, sender)
);

CREATE TABLE event_auth (                -- of state events only: chains of auth events are state events
    event_id text NOT NULL,
    auth_event_id text NOT NULL,
    PRIMARY KEY (event_id, auth_event_id)
);
CREATE INDEX event_auth_cited ON event_auth (auth_event_id);

-- Where each room's next event goes: one row a room, rewritten with every event, so that no index of it changes.
CREATE TABLE room_heads (
    room_id text PRIMARY KEY,
    event_ids text[] NOT NULL,           -- the forward extremities
    state_group bigint NOT NULL,         -- the room's present state: what current_state says
    state_ordering bigint NOT NULL,      -- position of the last change of current_state
    stream_ordering bigint NOT NULL      -- position of the last event that this row knows of
) WITH (fillfactor = 40);
CREATE TABLE backward_extremities (      -- events referred to that we do not have
    room_id text NOT NULL,
    event_id text NOT NULL,
    depth bigint,                        -- of the event that refers to it, the deepest of them
    stream_ordering bigint,              -- the position just before the first of them; what fills the gap gets it (`fills`)
    PRIMARY KEY (room_id, event_id)
);
CREATE TABLE pending_redactions (        -- redactions that came before what they redact
    room_id text NOT NULL,
    event_id text NOT NULL,              -- what is to be redacted
    redaction_id text NOT NULL,
    server_name text,                    -- whose events it may redact; NULL: everybody's
    stream_ordering bigint NOT NULL,     -- of the redaction
    PRIMARY KEY (room_id, event_id, redaction_id)
);

CREATE TABLE event_txns (                -- what a client sent under which transaction id
    user_id text NOT NULL,
    device_id text NOT NULL,
    room_id text NOT NULL,
    txn_id text NOT NULL,
    event_id text NOT NULL,
    sent_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, room_id, txn_id)
);
CREATE INDEX event_txns_event ON event_txns (event_id);
CREATE INDEX event_txns_sent ON event_txns (sent_ts);

CREATE TABLE state_groups (
    id bigint PRIMARY KEY,               -- handed out by the main process
    room_id text NOT NULL,
    prev_group bigint,                   -- the state before the event that made this group; NULL for the first
    base_group bigint,                   -- what the entries are a delta over; NULL: they are the whole state
    number integer NOT NULL              -- place among the groups of its line; synapse.state.groups says which base follows
);
CREATE INDEX state_groups_room ON state_groups (room_id);
CREATE TABLE state_group_entries (
    state_group bigint NOT NULL,
    type text NOT NULL,
    state_key text NOT NULL,
    event_id text,                       -- NULL: the base's entry is gone
    PRIMARY KEY (state_group, type, state_key)
);

CREATE TABLE current_state (
    room_id text NOT NULL,
    type text NOT NULL,
    state_key text NOT NULL,
    event_id text NOT NULL,
    membership text,                     -- of m.room.member
    stream_ordering bigint NOT NULL,     -- position at which the entry became current
    PRIMARY KEY (room_id, type, state_key)
);
CREATE INDEX current_state_members ON current_state (state_key, membership) WHERE type = 'm.room.member';
CREATE INDEX current_state_servers ON current_state (substr(state_key, strpos(state_key, ':') + 1), room_id)
    WHERE type = 'm.room.member' AND membership = 'join';
CREATE INDEX current_state_invited_servers ON current_state (substr(state_key, strpos(state_key, ':') + 1), room_id)
    WHERE type = 'm.room.member' AND membership = 'invite';
CREATE INDEX current_state_gone ON current_state (substr(state_key, strpos(state_key, ':') + 1), room_id, stream_ordering)
    WHERE type = 'm.room.member' AND membership <> 'join';
CREATE TABLE current_state_deltas (
    stream_ordering bigint NOT NULL,
    room_id text NOT NULL,
    type text NOT NULL,
    state_key text NOT NULL,
    event_id text,                       -- NULL: the entry went away
    prev_event_id text,
    PRIMARY KEY (room_id, stream_ordering, type, state_key)
);
CREATE INDEX current_state_deltas_stream ON current_state_deltas (stream_ordering);
CREATE INDEX current_state_deltas_members ON current_state_deltas (state_key, room_id, stream_ordering)
    WHERE type = 'm.room.member';

CREATE TABLE memberships (               -- every membership event that is or was state
    event_id text PRIMARY KEY,
    room_id text NOT NULL,
    user_id text NOT NULL,
    sender text NOT NULL,
    membership text NOT NULL,
    display_name text,
    avatar_url text,
    stream_ordering bigint NOT NULL
);
CREATE INDEX memberships_user_room ON memberships (user_id, room_id, stream_ordering);
CREATE INDEX memberships_room ON memberships (room_id, stream_ordering);
CREATE TABLE local_memberships (         -- where each local user stands now, also in rooms the server has left
    user_id text NOT NULL,
    room_id text NOT NULL,
    membership text NOT NULL,
    sender text NOT NULL,
    event_id text NOT NULL,
    stream_ordering bigint NOT NULL,
    forgotten boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, room_id)
);
CREATE INDEX local_memberships_room ON local_memberships (room_id, membership);

CREATE TABLE room_stats (                -- what room lists and summaries show, kept while events are written
    room_id text PRIMARY KEY,
    name text,
    topic text,
    canonical_alias text,
    avatar_url text,
    join_rules text,
    history_visibility text,
    guest_access text,
    encryption text,
    room_type text,
    joined_members integer NOT NULL DEFAULT 0,
    invited_members integer NOT NULL DEFAULT 0
);

---------------------------------------------------------------- reading

CREATE TABLE push_actions (              -- events that count as unread or notify, per local user
    user_id text NOT NULL,
    room_id text NOT NULL,
    stream_ordering bigint NOT NULL,
    event_id text NOT NULL,
    thread_id text NOT NULL DEFAULT 'main',
    notify boolean NOT NULL,
    highlight boolean NOT NULL,
    actions text NOT NULL,
    PRIMARY KEY (user_id, room_id, stream_ordering)
);

CREATE TABLE pushers (                   -- where the notifications of users are sent
    user_id text NOT NULL,
    app_id text NOT NULL,
    pushkey text NOT NULL,
    device_id text,                      -- of the session that made it, and that it ends with
    token_id bigint,                     -- likewise, the access token, where that has no device
    app_display_name text NOT NULL,
    device_display_name text NOT NULL,
    profile_tag text,
    lang text NOT NULL,
    data text NOT NULL,                  -- JSON
    set_ts bigint NOT NULL,
    last_stream_ordering bigint NOT NULL,-- what is before, and this, has been sent
    badge bigint NOT NULL DEFAULT 0,     -- the count that was sent last
    failing_since bigint,                -- NULL: the last attempt was a success
    PRIMARY KEY (user_id, app_id, pushkey)
);
CREATE INDEX pushers_key ON pushers (app_id, pushkey);

CREATE TABLE receipts (
    stream_id bigint NOT NULL UNIQUE,
    room_id text NOT NULL,
    receipt_type text NOT NULL,
    user_id text NOT NULL,
    thread_id text NOT NULL DEFAULT '',  -- '' is unthreaded
    event_id text NOT NULL,
    event_stream_ordering bigint,
    data text NOT NULL,                  -- {"ts": …}
    PRIMARY KEY (room_id, receipt_type, user_id, thread_id)
);
CREATE INDEX receipts_user ON receipts (user_id, room_id);
CREATE INDEX receipts_room_stream ON receipts (room_id, stream_id);

CREATE TABLE presence (
    stream_id bigint NOT NULL UNIQUE,
    user_id text PRIMARY KEY,
    state text NOT NULL,
    status_msg text,
    last_active_ts bigint NOT NULL,
    currently_active boolean NOT NULL
);

CREATE TABLE user_directory (
    user_id text PRIMARY KEY,
    display_name text,
    avatar_url text,
    words tsvector NOT NULL
);
CREATE INDEX user_directory_words ON user_directory USING gin (words);
CREATE INDEX user_directory_user_id ON user_directory (lower(user_id) text_pattern_ops);
-- Up to where the main process may hand out positions; after a crash it goes on behind that, so that no position is
-- ever handed out twice, although rows may have been deleted.
CREATE TABLE stream_positions (
    stream text PRIMARY KEY,
    reserved bigint NOT NULL,
    owner text NOT NULL                  -- the main process that hands them out, by a name of its own for each start
);
-- How far a follower of a stream has come, so that a restart goes on where it stopped.
CREATE TABLE stream_followers (
    follower text NOT NULL,
    stream text NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (follower, stream)
);

CREATE TABLE event_search (              -- what POST /search looks through
    stream_ordering bigint PRIMARY KEY,  -- of the event whose text it is
    room_id text NOT NULL,
    words tsvector NOT NULL
);
CREATE INDEX event_search_words ON event_search USING gin (words);

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

---------------------------------------------------------------- reports

CREATE TABLE event_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ts bigint NOT NULL,
    user_id text NOT NULL,               -- who reports
    room_id text NOT NULL,
    event_id text NOT NULL,
    score integer,                       -- from -100, most offensive, to 0; older clients give one
    reason text
);
CREATE TABLE room_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ts bigint NOT NULL,
    user_id text NOT NULL,               -- who reports
    room_id text NOT NULL,
    reason text NOT NULL
);
CREATE TABLE user_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ts bigint NOT NULL,
    user_id text NOT NULL,               -- who reports
    target_user_id text NOT NULL,
    reason text NOT NULL
);

---------------------------------------------------------------- transactions of other servers

CREATE TABLE received_transactions (     -- what they were answered; forgotten after a day
    origin text NOT NULL,
    txn_id text NOT NULL,
    received_ts bigint NOT NULL,
    answer text NOT NULL,                -- JSON
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

---------------------------------------------------------------- media and server keys

CREATE TABLE local_media (
    media_id text PRIMARY KEY,
    user_id text,
    media_type text NOT NULL,
    media_length bigint,                 -- NULL: created but not yet uploaded
    upload_name text,
    created_ts bigint NOT NULL,
    unused_expires_ts bigint,
    sha256 bytea,
    quarantined_by text,
    safe_from_quarantine boolean NOT NULL DEFAULT false,
    last_access_ts bigint
);
CREATE TABLE local_media_thumbnails (
    media_id text NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    method text NOT NULL,
    media_type text NOT NULL,
    media_length bigint NOT NULL,
    PRIMARY KEY (media_id, width, height, method, media_type)
);
CREATE TABLE remote_media (
    origin text NOT NULL,
    media_id text NOT NULL,
    media_type text NOT NULL,
    media_length bigint NOT NULL,
    upload_name text,
    created_ts bigint NOT NULL,
    last_access_ts bigint NOT NULL,
    filesystem_id text NOT NULL,
    quarantined_by text,
    PRIMARY KEY (origin, media_id)
);

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
