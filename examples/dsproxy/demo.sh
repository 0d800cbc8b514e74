#!/usr/bin/env bash
# Starts a Redis Cluster, a database and the proxy for this example, runs the lines of its README, and stops everything.
exec "$(dirname "$0")/../demo.sh" dsproxy PROXY_PORT 8081
