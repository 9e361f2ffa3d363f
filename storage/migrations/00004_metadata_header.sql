-- +goose Up
-- Upload-Metadata as its client wrote it: metadata has neither its order nor its spelling. It is null for uploads that came
-- without that header, and for those that the previous release creates.
set local role tramo_owner;

alter table uploads add column metadata_header text;

reset role;
