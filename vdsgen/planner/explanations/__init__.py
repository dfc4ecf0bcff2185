"""Why a plan is as it is, by numbers: each question is answered by planning or timing again."""
