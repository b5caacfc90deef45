v=/usr/lib/x86_64/libfoo.so.1.2; echo ${v##*/} ${v%/*} ${v%%.*} ${v/lib/LIB} ${v//lib/LIB} ${v:5:3} ${#v}
echo ${unset-default} ${unset:=assigned} $unset ${v:+alt}; (echo ${nothing:?must be set}) 2>&1; echo $?
echo {a..e}{1..3} {01..10..3}; shopt -s extglob nullglob; cd /usr/bin; echo b+([a-z])sh | head -c 200; echo
echo $'tab\there\x41\u00e9' "$(printf '%q ' 'a b' "it's" '$x')"; set -- a "b c" d; echo "$# $*"; IFS=-; echo "$*"; echo "${@:2}"
printf '%05.2f %x %o %e %-8s| %+d\n' 3.14159 255 8 12345.678 left 5
