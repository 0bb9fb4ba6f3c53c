-- How far each outbox has come (stores/postgres_cursors.py).  document is the cursor's bytes (journal/cursors.py), NULL where
-- it was held and never written.  claim counts the holds: a write under an older one writes nothing.  The holder is who holds
-- it and has not let it go; backend_pid and backend_start find its session in pg_stat_activity.
CREATE TABLE engine_cursors (
    stream              text COLLATE "C" NOT NULL,
    name                text COLLATE "C" NOT NULL,
    document            bytea,
    claim               bigint NOT NULL DEFAULT 0,
    holder_host         text,
    holder_pid          bigint,
    holder_since_ms     bigint,
    backend_pid         bigint,
    backend_start       timestamptz,
    PRIMARY KEY (stream, name)
);
