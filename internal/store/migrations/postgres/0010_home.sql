-- The DID of the service where the account of a stay lives; NULL: this service.
ALTER TABLE intervals ADD COLUMN service TEXT;

-- The MLS group of a conversation whose home is another service. It is not unique: a stranger's
-- home may name the group of a conversation here. group_id is NULL there.
ALTER TABLE logs ADD COLUMN copy_group_id BYTEA;
