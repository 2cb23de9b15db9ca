#!/usr/bin/env python3
"""deploy/kubernetes: every object against the schemas of Kubernetes, the names between them, the least that containers may do,
and the configurations of kelpd as `kelpd --check` sees them.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 the schemas cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "live"))
import verdict  # noqa: E402
from kelplab import process, venv  # noqa: E402
from kelplab.weed import REPOSITORY  # noqa: E402

MANIFESTS = REPOSITORY / "deploy" / "kubernetes"
PACKAGES = ("kubernetes-validate==1.37.0",)  # with the schemas in it
VERSIONS = ("1.27", "1.30", "1.33", "1.37")
KELP_ID = 990
PROBE = ["kelpctl", "health"]

Node = dict[str, Any]


class Check:
    def __init__(self, programs: Path, home: Path) -> None:
        self.programs, self.home = programs, home
        self.broken: list[str] = []

    def expect(self, held: object, promise: str) -> None:
        if not held:
            self.broken.append(promise)

    def schemas(self, objects: list[Node]) -> None:
        from kubernetes_validate import ValidationError, validate  # in the environment alone

        for version in VERSIONS:
            for one in objects:
                try:
                    validate(one, version, strict=True)
                except ValidationError as error:
                    self.broken.append(f"{label(one)} by the schema of {version}: {error.message}")
            spoiled = copy.deepcopy(next(one for one in objects if one["kind"] == "Pod"))
            spoiled["spec"]["containers"][0]["securityContext"]["readOnly"] = True
            try:
                validate(spoiled, version, strict=True)
                self.broken.append(f"the schema of {version} lets a misspelt field pass: it proves nothing")
            except ValidationError:
                pass

    def references(self, kustomization: Node, objects: list[Node]) -> None:
        """Every file is listed, every volume and generated object that is named is there, and is used."""
        listed = set(kustomization["resources"])
        there = {path.name for path in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml"}
        self.expect(listed == there, f"kustomization.yaml lists {sorted(listed)}, there are {sorted(there)}")
        generated = {kind: {one["name"] for one in kustomization[f"{kind}Generator"]} for kind in ("configMap", "secret")}
        named: dict[str, set[str]] = {"configMap": set(), "secret": set()}
        for one in objects:
            pod = pod_spec(one)
            if not pod:
                continue
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
            mounted = {place["name"] for container in containers(pod) for place in container.get("volumeMounts", [])}
            self.expect(volumes == mounted, f"{label(one)} has volumes {sorted(volumes)} and mounts {sorted(mounted)}")
            for volume in pod.get("volumes", []):
                named["configMap"] |= {volume["configMap"]["name"]} if "configMap" in volume else set()
                named["secret"] |= {volume["secret"]["secretName"]} if "secret" in volume else set()
            if one["kind"] != "Pod":
                self.expect(one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items(),
                            f"{label(one)} does not select its own pods")
        self.expect(named == generated, f"generated are {generated}, named are {named}")
        images = {image["name"] for image in kustomization["images"]}
        self.expect("kelp" in images, "kustomization.yaml does not say where the image kelp is")

    def privileges(self, objects: list[Node]) -> None:
        """No container may do more than it has to."""
        for one in objects:
            pod = pod_spec(one)
            if not pod:
                continue
            self.expect(not any(pod.get(key) for key in ("hostPID", "hostIPC", "hostNetwork", "shareProcessNamespace")),
                        f"{label(one)} shares a namespace")
            self.expect(pod.get("automountServiceAccountToken") is False, f"{label(one)} has a token for the API server")
            for container in containers(pod):
                name = f"{label(one)}, {container['name']}"
                may = pod.get("securityContext", {}) | container.get("securityContext", {})
                first = container in pod.get("initContainers", [])
                self.expect(may.get("allowPrivilegeEscalation") is False and not may.get("privileged"), f"{name} may become more")
                self.expect(may.get("readOnlyRootFilesystem") is True, f"{name} may write to its image")
                self.expect(may.get("capabilities", {}).get("drop") == ["ALL"], f"{name} keeps capabilities")
                self.expect(may.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), f"{name} has no seccomp profile")
                if not first:
                    self.expect("add" not in may.get("capabilities", {}), f"{name} has capabilities")
                    self.expect(may.get("runAsNonRoot") is True and may.get("runAsUser", 0) > 0, f"{name} runs as root")
                self.expect("memory" in container.get("resources", {}).get("requests", {}), f"{name} asks for no memory")

    def kelp(self, objects: list[Node]) -> None:
        """What kelpd, its clients and their pods have to agree about."""
        pods = {label(one): pod_spec(one) for one in objects if pod_spec(one)}
        target = container_named(pods["StatefulSet seaweedfs-volume"], "kelp-target")
        server = container_named(pods["StatefulSet seaweedfs-volume"], "volume")
        gateway = container_named(pods["DaemonSet kelp-gateway"], "kelpd")
        client = pods["Pod kelp-client"]
        for name, container in (("kelp-target", target), ("kelpd", gateway)):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                self.expect(container[probe]["exec"]["command"] == PROBE, f"{name} has no {probe} by kelpctl health")
            self.expect(container["securityContext"]["runAsUser"] == KELP_ID, f"{name} does not run as kelp of the image")
            self.expect(container["securityContext"]["seccompProfile"] == {"type": "Localhost", "localhostProfile": "kelp.json"},
                        f"{name} has a seccomp profile without io_uring")
        self.expect(place_of(target, "volumes").get("readOnly") is True, "kelp-target may write to the volumes")
        self.expect("readOnly" not in place_of(server, "volumes"), "the volume server may not write to the volumes")
        self.expect(place_of(target, "volumes")["mountPath"] == place_of(server, "volumes")["mountPath"], "the volumes' paths differ")
        self.expect(client["securityContext"]["supplementalGroups"] == [KELP_ID], "the client is not of the group kelp")
        self.expect(client["volumes"][0]["hostPath"]["path"] == next(
            volume for volume in pods["DaemonSet kelp-gateway"]["volumes"] if volume["name"] == "run")["hostPath"]["path"],
            "the client looks for kelpd in another directory of the node")
        dockerfile = (REPOSITORY / "deploy" / "Dockerfile").read_text()
        for key in ("KELP_UID", "KELP_GID"):
            self.expect(f"ARG {key}={KELP_ID}\n" in dockerfile, f"the image has another {key}")
        hugepages = gateway["resources"]
        self.expect(hugepages["requests"]["hugepages-2Mi"] == hugepages["limits"]["hugepages-2Mi"], "hugepages are not for sale by halves")

    def configurations(self, kustomization: Node) -> None:
        """As kelpd sees them; directories of the pods stand in a directory of ours."""
        (self.home / "volumes").mkdir()
        (self.home / "etc").mkdir()
        keys = self.home / "etc" / "peers.keys"
        # As the comment of kustomization.yaml makes them.
        made = re.search(r'echo "([^"]*)\$\(openssl rand -hex 32\)"', (MANIFESTS / "kustomization.yaml").read_text())
        keys.write_text((made[1] if made else "") + "5a" * 32 + "\n")
        keys.chmod(0o440)
        for generator in kustomization["configMapGenerator"]:
            for entry in generator["files"]:
                name, _, file = entry.partition("=")
                text = (MANIFESTS / file).read_text()
                self.expect(name == "kelpd.toml", f"{generator['name']} is not where kelpd looks")
                config = self.home / file
                config.write_text(text.replace('"/volumes"', f'"{self.home}/volumes"').replace("/etc/kelp-keys/", f"{self.home}/etc/"))
                code, said = self.kelpd_check(config)
                self.expect(code == 0, f"{file}: kelpd --check ends with {code}: {said}")
                config.write_text(text.replace("[peer]", "[peers]"))
                code, _ = self.kelpd_check(config)
                self.expect(code not in (0, None), f"{file}: kelpd --check lets a misspelt table pass")

    def kelpd_check(self, config: Path) -> tuple[int, str]:
        done = subprocess.run([self.programs / "kelpd", "--check", "--config", config], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False, timeout=30)
        return done.returncode, done.stdout + done.stderr


def label(one: Node) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def pod_spec(one: Node) -> Node:
    """Empty where it makes no pods."""
    return one["spec"] if one["kind"] == "Pod" else one["spec"].get("template", {}).get("spec", {})


def containers(pod: Node) -> Iterator[Node]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def container_named(pod: Node, name: str) -> Node:
    return next(container for container in pod["containers"] if container["name"] == name)


def place_of(container: Node, volume: str) -> Node:
    return next(place for place in container["volumeMounts"] if place["name"] == volume)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True)
    args = parser.parse_args()
    try:
        venv.enter(REPOSITORY / "build" / "kubernetes-venv", PACKAGES, process.Progress())
    except venv.Unreachable as error:
        print(f"skipped: the schemas of Kubernetes are not installed and the package index cannot be reached.\n{error}")
        return verdict.SKIPPED
    import yaml  # in the environment alone

    objects = [one for path in sorted(MANIFESTS.glob("*.yaml")) if path.name != "kustomization.yaml"
               for one in yaml.safe_load_all(path.read_text())]
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    with process.scratch_dir("kelp-kubernetes-") as home:
        check = Check(args.programs, home)
        check.schemas(objects)
        check.references(kustomization, objects)
        check.privileges(objects)
        check.kelp(objects)
        check.configurations(kustomization)
    print(f"{len(objects)} objects, schemas of {', '.join(VERSIONS)}")
    for one in check.broken:
        print(f"BROKEN: {one}")
    return 1 if check.broken else 0


if __name__ == "__main__":
    sys.exit(main())
