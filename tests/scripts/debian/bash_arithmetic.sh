echo $((2**40 % 1000003)) $((0xff & 0x3c)) $((-7 / 2)) $((-7 % 3)) $((1 ? 2 : 3)) $((010 + 2#101))
s=0; for ((i = 0; i < 100000; i++)); do ((s += i * i % 7)); done; echo $s
fib() { local n=$1; if ((n < 2)); then echo $n; else echo $(($(fib $((n - 1))) + $(fib $((n - 2))))); fi; }
fib 9; let x=5 x*=3; echo $x; ((x > 10)) && echo big; echo $((1 / 0)) ; echo "status $?"
