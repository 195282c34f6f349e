-- Apart from the change of the table, whose lock would last as long. (Millions of rows are filled in by batches, by
-- a program that runs beside the shop, before the version that reads the column is rolled out.)
UPDATE orders SET delivery_method = shipping_method WHERE delivery_method IS NULL;
