#!/bin/bash
# Makes the secrets of compose.yaml that are not there yet, in the directory secrets beside it.
set -euo pipefail
cd "$(dirname "$0")"

command -v openssl >/dev/null || {
	echo "openssl is needed: apt-get install openssl" >&2
	exit 1
}

# Containers read the files as users of their own, so everyone may; the directory lets nobody else on this machine in.
umask 022
mkdir -p secrets
chmod 700 secrets
cd secrets

# put writes a secret from standard input, whole or not at all, unless there is one.
put() {
	if [ -e "$1" ]; then
		cat >/dev/null
		return
	fi
	cat >"$1.new"
	chmod 444 "$1.new"
	mv "$1.new" "$1"
	echo "made secrets/$1"
}

random() { openssl rand -hex 32; }

for name in postgres_password api_password worker_password jwt_secret webhook_key ops_token s3_secret_key grafana_password; do
	random | put $name
done
openssl genpkey -algorithm ed25519 | put receipt_key
put database_url <<<"postgres://postgres:$(<postgres_password)@postgres:5432/tramo"
put api_database_url <<<"postgres://tramo_api:$(<api_password)@postgres:5432/tramo"
put worker_database_url <<<"postgres://tramo_worker:$(<worker_password)@postgres:5432/tramo"
put s3_credentials <<END
[default]
aws_access_key_id = tramo
aws_secret_access_key = $(<s3_secret_key)
END
