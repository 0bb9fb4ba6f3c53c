-- A stream is a journal's name within this file; its number, from 1, is the upper part of every position.
-- The checksum is digest.hash_parts of the number as i64, the name and the identity.
CREATE TABLE streams (
    stream              INTEGER PRIMARY KEY,
    name                TEXT NOT NULL UNIQUE,
    identity            BLOB NOT NULL,
    checksum            BLOB NOT NULL
);

CREATE TABLE epochs (
    stream              INTEGER NOT NULL,
    number              INTEGER NOT NULL,
    document            BLOB NOT NULL,
    PRIMARY KEY (stream, number)
);

-- position = stream * 2**40 + command_id is the row's own key, so (stream, command_id) is unique and in order without an
-- index of its own.  From command_id on, the columns are the fields of an Entry in their order.
CREATE TABLE entries (
    position            INTEGER PRIMARY KEY,
    stream              INTEGER NOT NULL,
    command_id          INTEGER NOT NULL,
    request_key         BLOB NOT NULL,
    type                TEXT NOT NULL,
    entity_id           TEXT,
    received_at_ms      INTEGER NOT NULL,
    data_bytes          BLOB NOT NULL,
    rejected            INTEGER NOT NULL,
    result_bytes        BLOB NOT NULL,
    events_bytes        BLOB NOT NULL,
    changes_bytes       BLOB,
    pre_digest_bytes    BLOB,
    post_digest_bytes   BLOB,
    chain               BLOB NOT NULL,
    part_hashes         BLOB NOT NULL,
    events_reduced      INTEGER NOT NULL,
    epoch               INTEGER NOT NULL,
    duration_ns         INTEGER NOT NULL,
    recorded_at_ms      INTEGER NOT NULL,
    checksum            BLOB NOT NULL
);

CREATE UNIQUE INDEX entries_by_request ON entries (stream, request_key);
