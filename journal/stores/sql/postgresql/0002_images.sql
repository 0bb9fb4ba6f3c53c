-- Images (snapshots/stores/postgres.py).  One that is being written has no name yet; those that were never finished are
-- swept.  size is in bytes, known when the name is given.
CREATE TABLE engine_images (
    image               uuid PRIMARY KEY,
    name                text COLLATE "C" UNIQUE,
    size                bigint NOT NULL,
    began_at            timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE engine_image_chunks (
    image               uuid NOT NULL REFERENCES engine_images ON DELETE CASCADE,
    number              bigint NOT NULL,
    data                bytea NOT NULL,
    PRIMARY KEY (image, number)
);
-- They are compressed already.
ALTER TABLE engine_image_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
