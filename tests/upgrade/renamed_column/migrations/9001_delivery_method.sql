-- The version before writes and reads shipping_method, this one delivery_method: whoever writes one has both written.
ALTER TABLE orders ADD COLUMN delivery_method text;

CREATE FUNCTION keep_method_names_equal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.delivery_method = coalesce(NEW.delivery_method, NEW.shipping_method);
        NEW.shipping_method = coalesce(NEW.shipping_method, NEW.delivery_method);
    ELSIF NEW.shipping_method IS DISTINCT FROM OLD.shipping_method THEN
        NEW.delivery_method = NEW.shipping_method;
    ELSIF NEW.delivery_method IS DISTINCT FROM OLD.delivery_method THEN
        NEW.shipping_method = NEW.delivery_method;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER orders_method_names BEFORE INSERT OR UPDATE ON orders
    FOR EACH ROW EXECUTE FUNCTION keep_method_names_equal();
