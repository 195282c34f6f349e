-- The read model: what the document store says, in the form in which readers get it and by what they find it.
-- All of it can be made anew from the documents (`stoa replay catalog`).

-- What readers get of each product, and what there is to say of one that was taken off sale. A row is replaced by a
-- later revision only, so the order in which revisions come does not matter.
CREATE TABLE products (
    product_id  uuid PRIMARY KEY,
    revision    bigint NOT NULL,
    on_sale     boolean NOT NULL,
    name        text NOT NULL,
    variant_ids uuid[] NOT NULL,
    view        bytea NOT NULL
);
CREATE INDEX products_by_variant ON products USING gin (variant_ids) WITH (fastupdate = off);

-- What lists find products on sale by, newest first: their ids are in the order in which they were added. It is apart
-- from what readers get, as a list may have to pass over many to find a few.
CREATE TABLE listings (
    product_id  uuid PRIMARY KEY,
    category    text NOT NULL,
    subcategory text NOT NULL,
    brand       text NOT NULL,
    tags        text[] NOT NULL,
    prices      numeric[] NOT NULL,
    lowest      numeric,
    highest     numeric
);
CREATE INDEX listings_by_category ON listings (category, product_id);
CREATE INDEX listings_by_subcategory ON listings (category, subcategory, product_id);
CREATE INDEX listings_by_brand ON listings (brand, product_id);
CREATE INDEX listings_by_lowest ON listings (lowest);
CREATE INDEX listings_by_highest ON listings (highest);

-- A list by tag, in the same order. (A GIN index on the array can't give an order.)
CREATE TABLE listing_tags (
    tag        text NOT NULL,
    product_id uuid NOT NULL,
    PRIMARY KEY (tag, product_id)
);

-- How many products on sale each part of a category has, since counting a million takes its time.
CREATE TABLE sections (
    category    text NOT NULL,
    subcategory text NOT NULL,
    products    bigint NOT NULL,
    PRIMARY KEY (category, subcategory)
);

-- How far the read model is compared with the documents, of which a process does a page whenever it is due; and the
-- form of the views that it was last made in, none before it is complete.
CREATE TABLE comparison (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    form     text NOT NULL DEFAULT '',
    due_at   timestamptz NOT NULL DEFAULT '-infinity',
    after    uuid
);
INSERT INTO comparison DEFAULT VALUES;

-- What lists walk is read again and again and lies in memory: a page at random costs hardly more than the next one.
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET random_page_cost = 1.1', current_database()); END $$;
