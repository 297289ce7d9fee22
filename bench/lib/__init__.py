"""What several measurements need: processes on a core of their own, load, and how results are said."""
