-- What federation needs: one section a subject. full.sql has the same tables.
-- Everything here only adds, so that processes of version 1 may run on it (COMPAT_VERSION stays 1, and a test holds it).

---------------------------------------------------------------- events

ALTER TABLE events ADD COLUMN relay boolean;
