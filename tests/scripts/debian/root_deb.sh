# A package of our own is built, installed, verified, upgraded and removed.
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
make() {
    rm -rf /tmp/p; mkdir -p /tmp/p/DEBIAN /tmp/p/opt/hello/d /tmp/p/etc
    printf 'Package: hello-husk\nVersion: %s\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: test\n' "$1" >/tmp/p/DEBIAN/control
    printf '#!/bin/sh\necho postinst "$@"\n' >/tmp/p/DEBIAN/postinst; chmod 755 /tmp/p/DEBIAN/postinst
    echo /etc/hello.conf >/tmp/p/DEBIAN/conffiles; echo conf >/tmp/p/etc/hello.conf
    for i in $(seq 40); do echo "$1 $i" >/tmp/p/opt/hello/d/$i; done
    chmod 4755 /tmp/p/opt/hello/d/1; ln -s d/1 /tmp/p/opt/hello/link
    dpkg-deb --root-owner-group -b /tmp/p /tmp/hello_$1.deb >/dev/null && echo built "$1"
}
make 1; make 2
apt-get install -y /tmp/hello_1.deb 2>&1 | tr -d '\r' | grep -e ^Setting -e ^postinst -e ^Unpacking
dpkg --verify hello-husk; cat /opt/hello/link; stat -c %a /opt/hello/d/1
echo changed >/opt/hello/d/2; dpkg --verify hello-husk
apt-get install -y /tmp/hello_2.deb 2>&1 | tr -d '\r' | grep -e ^Setting -e ^postinst -e ^Unpacking
cat /opt/hello/d/2; dpkg-query -W hello-husk
dpkg --purge hello-husk 2>&1 | grep -v ^.Reading; ls -d /opt/hello /etc/hello.conf 2>&1
