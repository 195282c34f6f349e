-- What is not sold any more is not counted. An older process leaves the column alone; what was withdrawn before is known
-- as soon as the events of deleted products are consumed, which begins with this version, or the product changes.
ALTER TABLE inventory ADD COLUMN on_sale boolean NOT NULL DEFAULT true;
CREATE INDEX inventory_of_product ON inventory (product_id);

-- The latest version that is known of each product: the topics of products are not ordered among each other.
CREATE TABLE products (
    product_id uuid PRIMARY KEY,
    version bigint NOT NULL
);
