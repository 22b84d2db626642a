#!/bin/bash
# Plain hosts reached by ssh: Ray on each, one search from the first; ends only what it started.
#
# Write below which hosts, and where psinas and the shared directory are on all of them. Then, on
# your own machine (ssh to every host without a password; the hosts reach each other):
#     ./hosts.sh up                               Ray on every host; again: on those that lack it
#     ./hosts.sh search digits --trials 24        launches a preset, and goes on where it had ended
#     ./hosts.sh watch                            what it prints; Ctrl-C ends only the watching
#     ./hosts.sh run 'psinas trials $RUN'         any command on the first host
#     ./hosts.sh fetch                            the run directory, to ./runs
#     ./hosts.sh stop                             ends the search in order; `search` goes on later
#     ./hosts.sh down                             ends Ray on every host, and nothing else there
# Its ledger, on your own machine:
#     psinas export runs/mine --best pgd_accuracy --out winner
#     optuna-dashboard runs/mine/study.journal            # pip install optuna-dashboard
#
# Where a host ends what its users started when they log out: `loginctl enable-linger`, there, once.
# A host that joins later: add it to HOSTS, `up` again. One that leaves: HOSTS=gpu3 ./hosts.sh down.
# `ray stop` appears nowhere: it ends every Ray of yours on a host, those of other work too. Here the
# process id of `ray start --block` is kept, and SIGTERM to it ends it with what it started.

set -u
HOSTS=${HOSTS:-gpu1 gpu2 gpu3}
HEAD=${HEAD:-gpu1}                      # the host of the driver, one of them
RAY_PORT=${RAY_PORT:-20300}             # this one and the next six, free on every host
VENV=${VENV:-/shared/psinas/.venv}      # psinas is installed there, for every host
SHARED=${SHARED:-/shared/psinas}        # a directory that every host sees: NFS, say
DATA=${DATA:-$SHARED/data}              # the datasets
RUN=${RUN:-$SHARED/runs/mine}           # the run directory
STATE=${STATE:-/tmp/psinas-$RAY_PORT}   # every host's own; a short path, for Ray's sockets
SSH=${SSH:-ssh -o BatchMode=yes}

# ---- on your own machine

# on HOST WORD...: run this file on a host, with the settings from here.
on() {
    local host=$1 command
    shift
    command=$(printf '%q ' env HEAD_IP="${HEAD_IP:-}" RAY_PORT="$RAY_PORT" VENV="$VENV" \
        SHARED="$SHARED" DATA="$DATA" RUN="$RUN" STATE="$STATE" bash -c "$(cat "$0")" hosts.sh here "$@")
    # shellcheck disable=SC2086  # a command with its options
    $SSH "$host" "$command"
}

# shellcheck disable=SC2086
up() {
    HEAD_IP=$($SSH "$HEAD" hostname -I | awk '{ print $1 }')
    local host failed=0
    [[ " $HOSTS " != *" $HEAD "* ]] || on "$HEAD" start head || return 1
    for host in $HOSTS; do
        [ "$host" = "$HEAD" ] || on "$host" start worker || failed=1
    done
    return "$failed"
}

down() {
    local host failed=0
    for host in $HOSTS; do      # the head last
        [ "$host" = "$HEAD" ] || on "$host" end ray || failed=1
    done
    if [[ " $HOSTS " == *" $HEAD "* ]]; then
        on "$HEAD" end search && on "$HEAD" end ray || failed=1
    fi
    return "$failed"
}

# ---- on a host

here() {
    export RAY_TMPDIR=$STATE PSINAS_DATA=$DATA RUN
    # Nobody else on the network may run code in this Ray: every process shows this token.
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$SHARED/.ray-token
    mkdir -p "$STATE" && chmod 700 "$STATE" && cd "$SHARED" || exit 1
    # shellcheck source=/dev/null
    . "$VENV/bin/activate" || exit 1
    local what=$1
    shift
    case $what in
        start) start "$1" ;;
        search) search "$@" ;;
        watch) tail -n 40 -F "$STATE/search.log" ;;
        run) bash -c "$1" ;;
        end) end "$1" ;;
    esac
}

# Whether the process that was started as NAME runs; its number may have gone to another since.
runs() {
    [ -s "$STATE/$1.pid" ] && ps -ww -o args= -p "$(cat "$STATE/$1.pid")" | grep "$2" > /dev/null
}

# behind NAME COMMAND...: start it beside this shell, to outlive it.
behind() {
    local name=$1
    shift
    set -m      # or the shell makes it deaf to SIGINT, by which psinas stops
    nohup "$@" > "$STATE/$name.log" 2>&1 < /dev/null &
    echo $! > "$STATE/$name.pid"
    set +m
}

start() {
    local role=$1 where=()
    if runs ray 'ray start'; then
        echo "$(hostname): Ray is there"
        return
    fi
    if [ "$role" = head ]; then
        [ -s "$RAY_AUTH_TOKEN_PATH" ] ||
            (umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH")
        echo "$HEAD_IP:$RAY_PORT" > "$STATE/address"
        where=(--head --node-ip-address="$HEAD_IP" --port="$RAY_PORT" --include-dashboard=false)
    else
        where=(--address="$HEAD_IP:$RAY_PORT")
    fi
    # --num-cpus=, --num-gpus=: what Ray may use of a host that others use too; all by default.
    behind ray ray start --block --disable-usage-stats "${where[@]}" \
        --node-manager-port=$((RAY_PORT + 1)) --object-manager-port=$((RAY_PORT + 2)) \
        --runtime-env-agent-port=$((RAY_PORT + 3)) --dashboard-agent-listen-port=$((RAY_PORT + 4)) \
        --dashboard-agent-grpc-port=$((RAY_PORT + 5)) --metrics-export-port=$((RAY_PORT + 6))
    for _ in $(seq 120); do
        sleep 1
        if grep -q 'Ray runtime started' "$STATE/ray.log"; then
            echo "$(hostname): Ray started"
            return
        fi
        runs ray 'ray start' || break
    done
    echo "$(hostname): Ray did not start:" >&2
    tail -n 20 "$STATE/ray.log" >&2
    return 1
}

search() {
    if runs search 'psinas search'; then
        echo "$(hostname): a search runs already: ./hosts.sh watch" >&2
        return 1
    fi
    behind search psinas search "$@" --resume --out "$RUN" --address "$(cat "$STATE/address")"
    echo "$(hostname): searching in $RUN"
}

# end NAME: SIGTERM to what was started as NAME, and wait for it; psinas saves its table first.
end() {
    local pid
    if ! runs "$1" ray && ! runs "$1" psinas; then
        echo "$(hostname): no $1 of ours"
        return
    fi
    pid=$(cat "$STATE/$1.pid")
    kill -TERM "$pid"
    for _ in $(seq 120); do
        kill -0 "$pid" 2> /dev/null || break
        sleep 1
    done
    if kill -0 "$pid" 2> /dev/null; then
        echo "$(hostname): $1 ($pid) does not end" >&2
        return 1
    fi
    rm -f "$STATE/$1.pid"
    echo "$(hostname): $1 ended"
}

case ${1:-} in
    up | down) "$1" ;;
    search) on "$HEAD" "$@" ;;
    watch) on "$HEAD" watch ;;
    run) on "$HEAD" run "${*:2}" ;;
    stop) on "$HEAD" end search ;;
    fetch) mkdir -p runs && rsync -a --partial -e "$SSH" "$HEAD:$RUN" runs/ ;;
    here) "$@" ;;
    *)
        echo "expected up, search, watch, run, fetch, stop or down, got '${1:-}'" >&2
        exit 2
        ;;
esac
