declare -a a=(one two three); a+=(four); echo "${#a[@]} ${a[*]} ${a[-1]} ${!a[@]}"
declare -A m=([x]=1 [y]=2 [z]=3); for k in $(printf '%s\n' "${!m[@]}" | sort); do echo "$k=${m[$k]}"; done
b=("${a[@]:1:2}"); echo "${b[@]/t/T}"; unset 'a[1]'; echo "${!a[@]}"; mapfile -t lines < /etc/passwd; echo "${#lines[@]} ${lines[0]}"
printf '%s|' "${a[@]^^}"; echo; IFS=: read -ra f <<< "a:b:c"; echo "${f[2]}"
