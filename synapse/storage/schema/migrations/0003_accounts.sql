-- What accounts, devices and keys need: one section a subject. full.sql has the same tables.
-- Everything here only adds, so that processes of version 1 may run on it (COMPAT_VERSION stays 1, and a test holds it).

---------------------------------------------------------------- SAML

CREATE TABLE saml_assertions (
    assertion_hash bytea PRIMARY KEY,
    expires_ts bigint NOT NULL
);
CREATE INDEX saml_assertions_expiry ON saml_assertions (expires_ts);

---------------------------------------------------------------- dehydrated devices

CREATE TABLE dehydrated_devices (
    user_id text PRIMARY KEY,
    device_id text NOT NULL,
    device_data text NOT NULL
);

---------------------------------------------------------------- OpenID tokens

CREATE TABLE openid_tokens (
    token_hash bytea PRIMARY KEY,
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
    auth_data text NOT NULL,
    etag bigint NOT NULL DEFAULT 0,
    key_count bigint NOT NULL DEFAULT 0,
    key_bytes bigint NOT NULL DEFAULT 0,
    deleted boolean NOT NULL DEFAULT false,
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
    session_data text NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
);

---------------------------------------------------------------- single sign-on

CREATE TABLE login_tokens (
    token_hash bytea PRIMARY KEY,
    user_id text NOT NULL,
    expires_ts bigint NOT NULL,
    auth_provider text,
    provider_session text
);
CREATE INDEX login_tokens_expiry ON login_tokens (expires_ts);
CREATE TABLE user_external_ids (
    auth_provider text NOT NULL,
    external_id text NOT NULL,
    user_id text NOT NULL,
    PRIMARY KEY (auth_provider, external_id)
);
CREATE INDEX user_external_ids_user ON user_external_ids (user_id);
CREATE TABLE sso_sessions (
    session_hash bytea NOT NULL,
    browser_hash bytea NOT NULL,
    expires_ts bigint NOT NULL,
    content jsonb NOT NULL,
    PRIMARY KEY (session_hash, browser_hash)
);
CREATE INDEX sso_sessions_expiry ON sso_sessions (expires_ts);
CREATE TABLE sso_devices (
    user_id text NOT NULL,
    device_id text NOT NULL,
    auth_provider text NOT NULL,
    provider_session text NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
CREATE INDEX sso_devices_session ON sso_devices (auth_provider, provider_session);

---------------------------------------------------------------- third-party identifiers

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

---------------------------------------------------------------- what accounts may do

ALTER TABLE users ADD COLUMN consent_version text;
ALTER TABLE users ADD COLUMN consent_ts bigint;
ALTER TABLE users ADD COLUMN consent_notice_sent text;
ALTER TABLE users ADD COLUMN valid_until_ts bigint;

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

---------------------------------------------------------------- interactive authentication

ALTER TABLE ui_auth_sessions ADD COLUMN user_id text;
CREATE INDEX ui_auth_sessions_user ON ui_auth_sessions (user_id);
CREATE INDEX ui_auth_sessions_created ON ui_auth_sessions (created_ts);
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

---------------------------------------------------------------- refresh tokens

CREATE TABLE refresh_tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token_hash bytea NOT NULL UNIQUE,
    user_id text NOT NULL,
    device_id text NOT NULL,
    expires_ts bigint,
    session_expires_ts bigint,
    next_token_id bigint,
    used boolean NOT NULL DEFAULT false
);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id, device_id);
CREATE INDEX refresh_tokens_next ON refresh_tokens (next_token_id) WHERE next_token_id IS NOT NULL;
CREATE INDEX access_tokens_expiry ON access_tokens (expires_ts) WHERE device_id IS NULL AND expires_ts IS NOT NULL;
CREATE INDEX access_tokens_refresh ON access_tokens (refresh_token_id) WHERE refresh_token_id IS NOT NULL;

---------------------------------------------------------------- keys and devices' messages

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

-- Who signs what: the keys of users as such, the latest of each usage. Signatures, also those that came with a key, are
-- in key_signatures, each once.
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

---------------------------------------------------------------- application services

ALTER TABLE access_tokens ADD COLUMN app_service_id text;

---------------------------------------------------------------- pushers

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
