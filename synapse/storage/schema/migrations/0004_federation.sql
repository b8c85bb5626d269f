-- What federation needs: one section a subject. full.sql has the same tables.
-- Everything here only adds, so that processes of version 1 may run on it (COMPAT_VERSION stays 1, and a test holds it).

---------------------------------------------------------------- events

ALTER TABLE events ADD COLUMN relay boolean;

---------------------------------------------------------------- servers in rooms

CREATE INDEX current_state_servers ON current_state (substr(state_key, strpos(state_key, ':') + 1), room_id)
    WHERE type = 'm.room.member' AND membership = 'join';
