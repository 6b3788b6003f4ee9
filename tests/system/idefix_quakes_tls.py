#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""All earthquakes from an Idefix backend over TLS, with a certificate of a test authority, through outages, dropped
answers and kills. See idefix_quakes.py.
"""
import idefix_quakes

idefix_quakes.run(tls=True)
