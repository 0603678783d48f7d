"""Owns the answer to "what runs?": every component with its process, its health and its version.
It must not change anything."""

from . import build, control_plane, network, node, process, settings


def components() -> list[process.Component]:
    parts = control_plane.components() + [node.containerd(), node.kubelet(), node.kube_proxy(), node.coredns()]
    return parts + [network.relay(name) for name in settings.EXPOSED]


def status() -> bool:
    """Prints the table; true if everything runs and answers."""
    well = True
    for component in components():
        record = process.running(component.name)
        state = "stopped" if not record else "healthy" if component.healthy() else "does not answer"
        well &= state == "healthy"
        print(f"{component.name:<26} {state:<16} {'pid ' + str(record['pid']) if record else ''}")
    print(f"\nKubernetes {settings.module_version(build.KUBERNETES)}, kubeconfig {settings.KUBECONFIG}")
    for name, (host_port, cluster_port) in settings.EXPOSED.items():
        print(f"  {name:<10} 127.0.0.1:{host_port:<6} -> {settings.LINK_ADDRESS}:{cluster_port}")
    print(f"  any other NodePort: {settings.LINK_ADDRESS}:PORT")
    return well
