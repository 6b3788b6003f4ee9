#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""All earthquakes from an Idefix backend over plain TCP, through outages, dropped answers and kills. See
idefix_quakes.py.
"""
import idefix_quakes

idefix_quakes.run(tls=False)
