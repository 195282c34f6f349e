-- What holds for all of the shop and must not change under the amounts that are kept here: one row.
CREATE TABLE shop (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    currency text NOT NULL
);
