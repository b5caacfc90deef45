// Creates a VM and prints in one line what came of it.
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

int main(void) {
    int kvm = open("/dev/kvm", O_RDWR);
    if (kvm < 0) return printf("no /dev/kvm: %s\n", strerror(errno)), 1;
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0) return printf("KVM_CREATE_VM: %s\n", strerror(errno)), 1;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    return printf("KVM API %d, vm created, vCPU %s\n", ioctl(kvm, KVM_GET_API_VERSION, 0), vcpu < 0 ? "refused" : "too"), 0;
}
