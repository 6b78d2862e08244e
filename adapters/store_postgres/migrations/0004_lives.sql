-- In which life of the server the present epoch began: a replica that was promoted, or a backup that was restored, is
-- another one and may lack the newest. NULL where it was not known.
ALTER TABLE rooms ADD COLUMN life text COLLATE "C";

-- Behind which no place is empty though the present epoch began later; NULL where it begins behind `behind` itself.
ALTER TABLE rooms ADD COLUMN whole_behind bigint;
