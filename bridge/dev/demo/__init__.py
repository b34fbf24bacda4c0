"""`drx-bridge demo`: one story, played on a real stack and checked hop by hop."""
