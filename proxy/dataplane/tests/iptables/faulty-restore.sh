#!/bin/sh
# iptables-restore that fails as the file @FAULT@ says: "spoil TABLE" adds an invalid rule to the table's section,
# "die after N" restores N sections and dies, "refuse TEXT" refuses input with TEXT in it as the legacy kernel does.
# Its lock is the test's own: other tests run beside it.
export XTABLES_LOCKFILE="@FAULT@.lock"
fault=$(cat "@FAULT@")
word=${fault##* }
case "$fault" in
"spoil "*)
    awk -v table="*$word" '
        $0 == table { inside = 1 }
        inside && $0 == "COMMIT" { print "-A NO-SUCH-CHAIN -j ACCEPT"; inside = 0 }
        { print }' | exec "@REAL@" "$@"
    ;;
"die after "*)
    awk -v most="$word" 'most == 0 { exit } { print } $0 == "COMMIT" && ++count == most { exit }' | "@REAL@" "$@"
    kill -9 $$
    ;;
"refuse "*)
    input=$(cat)
    case "$input" in
    *"$word"*)
        echo "iptables-restore: line $(printf '%s\n' "$input" | wc -l) failed" >&2
        exit 1
        ;;
    *) printf '%s\n' "$input" | "@REAL@" "$@" ;;
    esac
    ;;
*) exec "@REAL@" "$@" ;;
esac
