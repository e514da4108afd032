"""Which arguments and blocks Terraform's providers take, as far as our modules use them, for terraform_test.go.

The providers themselves come from a registry that CI does not reach. HashiCorp publishes their schemas to PyPI too, as
classes of the CDK; this reads those classes' signatures, without running them:

    pip download --no-deps -d build/cdktf cdktf-cdktf-provider-aws==21.22.1 cdktf-cdktf-provider-google==16.12.1
    python3 docker/cloud/testdata/providers.py build/cdktf >docker/cloud/testdata/providers.json
"""
import ast, glob, json, re, sys, zipfile

META = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners", "id"}


def types(modules):
    for path in glob.glob(modules + "/*/*.tf"):
        for kind, name in re.findall(r'^(resource|data) "(\w+)"', open(path).read(), re.M):
            yield kind, name


def block(classes, name, top=True):
    init = next(f for f in classes[name].body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
    out = {"required": [], "optional": [], "blocks": {}}
    for arg, default in zip(init.args.kwonlyargs, init.args.kw_defaults):
        if top and arg.arg in META:
            continue
        words = (getattr(s, "value", None) if isinstance(s, ast.Constant) else getattr(s, "id", None) for s in ast.walk(arg.annotation))
        nested = [w for w in words if w in classes]
        out["required" if default is None else "optional"].append(arg.arg)
        if nested and arg.arg != "timeouts":
            out["blocks"][arg.arg] = block(classes, nested[0], False)
    return out


def main(folder):
    wheels = {re.search(r"provider_(\w+)-", w).group(1): zipfile.ZipFile(w) for w in glob.glob(folder + "/*.whl")}
    out = {"from": {p: w.filename.split("/")[-1] for p, w in sorted(wheels.items())}}
    for kind, name in sorted(set(types("docker/cloud/terraform"))):
        provider, short = name.split("_", 1)
        package = f"cdktf_cdktf_provider_{provider}/" + (f"data_{name}" if kind == "data" else short)
        tree = ast.parse(wheels[provider].read(package + "/__init__.py"))
        classes = {c.name: c for c in tree.body if isinstance(c, ast.ClassDef)}
        config = next(n for n, c in classes.items() if n.endswith("Config") and any("TerraformMetaArguments" in ast.unparse(b) for b in c.bases))
        out[f"{kind} {name}"] = block(classes, config)
    json.dump(out, sys.stdout, indent=None, separators=(",", ":"), sort_keys=True)
    print()


main(sys.argv[1])
