#!/bin/sh
# iptables-restore that does as the file @TOLD@ says: "spoil TABLE" puts a rule into the table's section that is refused,
# "die after N" hands N sections on and dies, "refuse TEXT" refuses input with TEXT in it as the legacy kernel does.
# Its lock is the test's own: other tests run beside it.
export XTABLES_LOCKFILE="@TOLD@.lock"
told=$(cat "@TOLD@")
word=${told##* }
case "$told" in
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
