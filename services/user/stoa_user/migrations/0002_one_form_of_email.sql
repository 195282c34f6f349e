-- `email` is the form in which addresses are compared (`model.email_key`), which lower() does not change; this is
-- how its owner wrote it. Accounts from before, and those that an older process changes, have theirs in `email`.
ALTER TABLE users ADD COLUMN email_typed text;
