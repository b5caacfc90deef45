x=world; cat <<A; cat <<'B'; cat <<-C
hello $x $(echo sub) \$x
A
raw $x $(no)
B
	tabs gone $((1+2))
	C
cat <<< "string $x"; while read -r a b; do echo "$b-$a"; done <<EOF
1 one
2 two words
EOF
f() { cat; }; f <<X | tr a-z A-Z
piped here
X
for i in $(seq 3); do cat <<Y
loop $i
Y
done | wc -l; { cat; cat <&3; } <<P 3<<Q
first
P
second
Q
head -c 100000 /dev/zero | tr '\0' x > /tmp/big; wc -c <<< "$(cat /tmp/big)"
