-- What accounts, devices and keys need: one section a subject. full.sql has the same tables.
-- Everything here only adds, so that processes of version 1 may run on it (COMPAT_VERSION stays 1, and a test holds it).

---------------------------------------------------------------- single sign-on

CREATE TABLE login_tokens (
    token_hash bytea PRIMARY KEY,
    user_id text NOT NULL,
    expires_ts bigint NOT NULL,
    auth_provider text,
    provider_session text
);
CREATE INDEX login_tokens_expiry ON login_tokens (expires_ts);
