"""The robot side: what turns plans into motion and stands between them and the arm. Imports neither ROS nor torch."""
