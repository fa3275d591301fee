"""Facts and config -> plan. Pure: which units stay, how many, and what that makes of sizes."""
