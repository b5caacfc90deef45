f() { local v=inner; g; echo "$v $FUNCNAME ${#FUNCNAME[@]}"; return 7; }; g() { echo "sees $v"; v=changed; caller 0; }
v=outer; f; echo "$? $v"; h() { for x; do echo -n "<$x>"; done; echo; shift; echo "$@"; }; h 1 "2 3" 4
declare -f h | head -3; unset -f h; h 2>&1; echo $?; trap 'echo returned' RETURN; k() { :; }; declare -t -f k; declare -ft k; k
export -f g 2>/dev/null; bash -c 'v=z; g' 2>&1 | head -1; set -o errtrace; trap 'echo err $?' ERR; false; (exit 3); true
