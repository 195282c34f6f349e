-- contract: unused since 9002_delivery_method_of_old.sql
DROP TRIGGER orders_method_names ON orders;
DROP FUNCTION keep_method_names_equal();
ALTER TABLE orders DROP COLUMN shipping_method;
