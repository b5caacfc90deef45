//! `docker-compose`: services that depend on each other and share a volume. For a daemon with a bridge.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "three services",
    r#"
compose() { docker-compose --host "${E#docker --host }" --project-name $C --file $W/compose.yml "$@" 2>>$W/errors; }
cat >$W/compose.yml <<EOF
version: "2.4"
x-any: &any
  image: $I
  runtime: ${F#--runtime }
  volumes: [ "shared:/v" ]
  stop_grace_period: 30s
services:
  store:
    <<: *any
    command: sh -c 'trap "echo store ends; exit 3" TERM; echo first >/v/first; touch /ready; while :; do sleep 0.05; done'
    healthcheck: { test: test -e /ready, interval: 0.2s, timeout: 20s, retries: 100 }
  maker:
    <<: *any
    environment: { WHAT: second }
    command: sh -c 'trap "exit 0" TERM; cat /v/first; echo \$\$WHAT >/v/t; mv /v/t /v/second; while :; do sleep 0.05; done'
    depends_on: { store: { condition: service_healthy } }
  reader:
    <<: *any
    command: sh -c 'until [ -e /v/second ]; do sleep 0.05; done; cat /v/second; exit 4'
    depends_on: [ maker ]
volumes: { shared: {} }
EOF
rc compose up -d
await sh -c "[ \$($E inspect -f '{{.State.Status}}' ${C}_reader_1) = exited ]"
compose ps --services --filter status=running | sort
compose ps --services --filter status=stopped | sort
says() { compose logs --no-color $1 | grep '|' | wc -l | grep -qx $2; }
await says maker 1; await says reader 1
compose logs --no-color | grep '|' | sort
rc compose exec -T store ls /v
echo input | rc compose exec -T maker cat
rc compose exec -T maker sh -c 'exit 6'
rc compose run --rm -T reader cat /v/first
rc compose exec -T maker httpd -p 80 -h /v
await compose exec -T store wget -qO- http://maker/second >/dev/null
compose exec -T store wget -qO- http://maker/second
rc compose restart -t 30 maker
await says maker 2
rc compose pause store; rc compose unpause store
rc compose stop
e inspect -f '{{.State.ExitCode}}' ${C}_store_1 ${C}_maker_1 ${C}_reader_1
await says store 1
compose logs --no-color store | grep '|'
rc compose up -d store
rc compose down -v
e ps -aq --filter name=$C | wc -l
e volume ls -q --filter name=$C | wc -l
cat $W/errors >&2
"#,
)];
