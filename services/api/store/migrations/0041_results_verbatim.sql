-- A stored result is given back as it was stored, byte for byte: jsonb would order its keys anew, and its hash would not fit.
DO $$
BEGIN
    IF (SELECT data_type FROM information_schema.columns
         WHERE table_schema = 'noetl' AND table_name = 'result_store' AND column_name = 'data') = 'jsonb' THEN
        ALTER TABLE noetl.result_store ALTER COLUMN data TYPE json USING data::text::json;
    END IF;
END
$$;
