-- Names are compared byte by byte, whatever the database's collation is.
--
-- claim counts the openings for write, and epoch is the newest one recorded: an append reads both FOR SHARE in its own
-- transaction, so that it cannot be on its way while they move.  The holder is who opened for write last and has not closed;
-- backend_pid and backend_start find its session in pg_stat_activity.
CREATE TABLE engine_streams (
    stream              text COLLATE "C" PRIMARY KEY,
    identity            bytea NOT NULL,
    claim               bigint NOT NULL,
    epoch               bigint NOT NULL,
    holder_host         text,
    holder_pid          bigint,
    holder_since_ms     bigint,
    backend_pid         bigint,
    backend_start       timestamptz
);

CREATE TABLE engine_epochs (
    stream              text COLLATE "C" NOT NULL,
    number              bigint NOT NULL,
    document            bytea NOT NULL,
    PRIMARY KEY (stream, number)
);

-- One row a command; the columns are the fields of an Entry (journal/records.py).  command_id is the writer's, gapless from 1.
-- Those of fixed size come first: a writer packs them in one step.
CREATE TABLE engine_journal (
    stream              text COLLATE "C" NOT NULL,
    command_id          bigint NOT NULL,
    request_key         uuid NOT NULL,
    received_at_ms      bigint NOT NULL,
    rejected            boolean NOT NULL,
    events_reduced      boolean NOT NULL,
    epoch               bigint NOT NULL,
    duration_ns         bigint NOT NULL,
    recorded_at_ms      bigint NOT NULL,
    chain               bytea NOT NULL,
    part_hashes         bytea NOT NULL,
    checksum            bytea NOT NULL,
    type                text NOT NULL,
    entity_id           text,
    data_bytes          bytea NOT NULL,
    result_bytes        bytea NOT NULL,
    events_bytes        bytea NOT NULL,
    changes_bytes       bytea,
    pre_digest_bytes    bytea,
    post_digest_bytes   bytea,
    PRIMARY KEY (stream, command_id),
    CONSTRAINT engine_journal_by_request UNIQUE (stream, request_key)
);

-- What is packed, for those who look with SQL.  Values inside (data, result) stay MessagePack (journal/values.py): SQL
-- cannot decode it.

-- An unsigned big-endian integer of up to 7 bytes, at a byte counted from 0.
CREATE FUNCTION engine_unsigned(packed bytea, first integer, size integer) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $body$
DECLARE
    total bigint := 0;
BEGIN
    FOR at IN first .. first + size - 1 LOOP
        total := total * 256 + get_byte(packed, at);
    END LOOP;
    RETURN total;
END
$body$;

-- The events of one command (journal/framing.py), index from 0 in the order emitted.
CREATE FUNCTION engine_split_events(packed bytea)
RETURNS TABLE (index integer, type text, key text, sequence bigint, data bytea)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path FROM CURRENT AS $body$
DECLARE
    at integer := 1;
    flags integer;
    type_size integer;
    key_size integer;
    data_size integer;
BEGIN
    IF get_byte(packed, 0) <> 1 THEN
        RAISE EXCEPTION 'events of an unknown version %', get_byte(packed, 0);
    END IF;
    index := 0;
    WHILE at < length(packed) LOOP
        flags := get_byte(packed, at);
        type_size := engine_unsigned(packed, at + 1, 2);
        key_size := engine_unsigned(packed, at + 3, 2);
        data_size := engine_unsigned(packed, at + 5, 4);
        sequence := NULL;
        IF flags & 2 <> 0 THEN
            sequence := ('x' || encode(substring(packed FROM at + 10 FOR 8), 'hex'))::bit(64)::bigint;
        END IF;
        at := at + 17;
        type := convert_from(substring(packed FROM at + 1 FOR type_size), 'UTF8');
        key := NULL;
        IF flags & 1 <> 0 THEN
            key := convert_from(substring(packed FROM at + 1 + type_size FOR key_size), 'UTF8');
        END IF;
        data := substring(packed FROM at + 1 + type_size + key_size FOR data_size);
        at := at + type_size + key_size + data_size;
        RETURN NEXT;
        index := index + 1;
    END LOOP;
END
$body$;

-- The tables of a state's digest (journal/digest.py): rows, and the sum of their hashes.  None for an engine without tables.
CREATE FUNCTION engine_split_digest(packed bytea)
RETURNS TABLE (name text, rows bigint, hash text)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path FROM CURRENT AS $body$
DECLARE
    at integer := 1;
    name_size integer;
BEGIN
    IF length(packed) = 0 OR get_byte(packed, 0) <> 1 THEN
        RETURN;
    END IF;
    WHILE at < length(packed) LOOP
        name_size := get_byte(packed, at);
        name := convert_from(substring(packed FROM at + 2 FOR name_size), 'UTF8');
        rows := engine_unsigned(packed, at + 1 + name_size + 1, 7);
        hash := encode(substring(packed FROM at + 10 + name_size FOR 16), 'hex');
        at := at + 25 + name_size;
        RETURN NEXT;
    END LOOP;
END
$body$;

CREATE VIEW engine_commands AS
SELECT
    journal.stream,
    journal.command_id,
    journal.request_key AS request_id,
    journal.type,
    journal.entity_id,
    to_timestamp(journal.received_at_ms / 1000.0) AS received_at,
    journal.received_at_ms,
    journal.rejected,
    journal.data_bytes AS data,
    journal.result_bytes AS result,
    coalesce(happened.events, 0) AS events,
    coalesce(happened.types, '{}') AS event_types,
    journal.events_reduced,
    journal.epoch,
    journal.duration_ns,
    to_timestamp(journal.recorded_at_ms / 1000.0) AS recorded_at
FROM engine_journal AS journal
LEFT JOIN LATERAL (
    SELECT count(*) AS events, array_agg(event.type ORDER BY event.index) AS types
    FROM engine_split_events(journal.events_bytes) AS event
) AS happened ON true;

CREATE VIEW engine_events AS
SELECT
    journal.stream,
    journal.command_id,
    event.index,
    event.type,
    event.key,
    event.sequence,
    event.data,
    to_timestamp(journal.received_at_ms / 1000.0) AS received_at
FROM engine_journal AS journal
CROSS JOIN LATERAL engine_split_events(journal.events_bytes) AS event;

-- The digests are as packed: their root is a hash that SQL cannot compute.  Equal bytes are equal states.
CREATE VIEW engine_command_digests AS
SELECT
    stream,
    command_id,
    pre_digest_bytes AS pre_digest,
    post_digest_bytes AS post_digest,
    encode(chain, 'hex') AS chain,
    encode(part_hashes, 'hex') AS part_hashes,
    encode(checksum, 'hex') AS checksum
FROM engine_journal;
