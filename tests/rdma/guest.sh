# What every command in the virtual machine finds, sourced before it: a link between veth0 (10.77.0.1) and veth1
# (10.77.0.2) with a soft-RoCE device on each end, rxe0 and rxe1.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C PYTHONDONTWRITEBYTECODE=1
export HOME=/run/home TMPDIR=/run/tmp
mkdir -p "$HOME" "$TMPDIR"
hostname vm
ulimit -l unlimited
unset "${!XDG_@}"

# Both ends are in one network namespace, because soft-RoCE of these kernels knows only the first. Rules keep the
# packets on the wire: what goes to one address leaves by the other's device, and from its address unless a program
# chose another, instead of by the loopback.
join() { # device, its address, the other's address, the other's device, a number
  sysctl -qw "net.ipv4.conf.$1.rp_filter=0" "net.ipv4.conf.$1.accept_local=1"
  ip addr add "$2/32" dev "$1"
  ip neigh replace "$3" lladdr "$(cat "/sys/class/net/$4/address")" dev "$1" nud permanent
  ip route add "$3/32" dev "$1" src "$2" table "1$5"
  ip rule add pref "$5" iif "$1" to "$2" lookup local
  ip rule add pref "1$5" to "$3" lookup "1$5"
  rdma link add "rxe$(($5 - 1))" type rxe netdev "$1"
}
ip link set lo up
ip link add veth0 type veth peer name veth1
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.all.accept_local=1
ip link set veth0 mtu 9000 up
ip link set veth1 mtu 9000 up
join veth0 10.77.0.1 10.77.0.2 veth1 1
join veth1 10.77.0.2 10.77.0.1 veth0 2
ip rule add pref 100 lookup local
ip rule del pref 0
